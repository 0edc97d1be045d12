package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What the engine asks of a router.
var _ interface {
	Apply(ctx context.Context, env rollout.Key, table rollout.Table) error
	Status(ctx context.Context, env rollout.Key) (rollout.RouterStatus, error)
} = (*Client)(nil)

func wantFault(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind {
		t.Errorf("got %v, want a fault of kind %s", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.Error(), w) {
			t.Errorf("%q is not in: %v", w, f)
		}
	}
}

func web(generation int64, listen, host, path string, backends ...rollout.Backend) rollout.Table {
	return rollout.Table{Generation: generation, Listen: listen, Services: []rollout.Service{
		{Name: "web", Host: host, Path: path, Hold: time.Second, Drain: time.Second, Backends: backends},
	}}
}

func TestGenerations(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	if s, err := g.Status(ctx, shop); err != nil || s.Generation != 0 {
		t.Errorf("before any table: %+v %v", s, err)
	}
	a, b := named(t, "a"), named(t, "b")
	g.apply(shop, web(5, g.addr, "", "/", a, b))
	g.apply(shop, web(5, g.addr, "", "/", a, b))
	g.apply(shop, web(5, g.addr, "", "/", b, a)) // the same in another order
	wantFault(t, g.Apply(ctx, shop, web(5, g.addr, "", "/", a)), fault.Conflict, "generation 5", "other content")
	wantFault(t, g.Apply(ctx, shop, web(4, g.addr, "", "/", a)), fault.Conflict, "generation 4", "generation 5")
	s, err := g.Status(ctx, shop)
	s.Traffic = nil
	if diff := cmp.Diff(rollout.RouterStatus{Generation: 5, InFlight: map[string]int{"a": 0, "b": 0}}, s); diff != "" || err != nil {
		t.Errorf("%v, status (-want +got)\n%s", err, diff)
	}
	wantFault(t, g.Apply(ctx, shop, web(6, g.addr, "", "no-slash", a)), fault.Invalid, "no-slash")
}

func TestAddressInUseChangesNothing(t *testing.T) {
	g := newRig(t)
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before, _ := os.ReadFile(statePath(g.dir))
	wantFault(t, g.Apply(t.Context(), shop, web(2, taken.Addr().String(), "", "/", named(t, "b"))), fault.Conflict, taken.Addr().String())
	wantFault(t, g.Apply(t.Context(), shop, web(2, "192.0.2.1:80", "", "/")), fault.Unavailable, "192.0.2.1:80")
	if _, body := g.get("/"); body != "a" || g.describe().Generation != 1 {
		t.Errorf("%q answers, status %+v", body, g.describe())
	}
	if after, _ := os.ReadFile(statePath(g.dir)); !bytes.Equal(before, after) {
		t.Error("the saved tables changed")
	}
}

func TestEnvironmentsShareAnAddressUnlessTheyCollide(t *testing.T) {
	g := newRig(t)
	staging := rollout.Key{App: "shop", Env: "staging"}
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
	g.apply(staging, web(1, g.addr, "", "/staging", named(t, "b")))
	for path, want := range map[string]string{"/x": "a", "/staging/x": "b"} {
		if _, body := g.get(path); body != want {
			t.Errorf("%s is answered by %q", path, body)
		}
	}
	wantFault(t, g.Apply(t.Context(), staging, web(2, g.addr, "", "/")), fault.Conflict, "shop/staging web", "shop/production web")
	twice := web(3, g.addr, "A.example", "/x/")
	twice.Services = append(twice.Services, rollout.Service{Name: "web2", Host: "a.example", Path: "/x"})
	wantFault(t, g.Apply(t.Context(), staging, twice), fault.Conflict, "web2")
	all, err := g.All(t.Context())
	if err != nil || len(all) != 2 || all[0].Key != shop || all[1].Key != staging || !all[0].Listening {
		t.Errorf("all: %+v %v", all, err)
	}
	g.apply(staging, rollout.Table{Generation: 9})
	if _, body := g.get("/staging/x"); body != "a" {
		t.Errorf("after the route was removed %q answers", body)
	}
}

func TestAddressMoves(t *testing.T) {
	g := newRig(t)
	a := named(t, "a")
	g.apply(shop, web(1, g.addr, "", "/", a))
	old := g.addr
	g.addr = freeAddr(t)
	g.apply(shop, web(2, g.addr, "", "/", a))
	if _, body := g.get("/"); body != "a" {
		t.Errorf("%q answers at the new address", body)
	}
	if c, err := net.Dial("tcp", old); err == nil {
		c.Close()
		t.Error("the old address is still open")
	}
	other := rollout.Key{App: "other", Env: "production"}
	g.apply(other, web(1, old, "", "/", a)) // it is free at once
}

func TestRestartServesAtOnceFromTheFile(t *testing.T) {
	g := newRig(t)
	g.apply(shop, web(7, g.addr, "shop.example", "/", named(t, "a")))
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Status(t.Context(), shop); err == nil {
		t.Error("the stopped router answers")
	} else {
		wantFault(t, err, fault.Unavailable, "ashlar router")
	}
	g.start(Config{RunDir: g.dir})
	if s := g.describe(); s.Generation != 7 || !s.Listening {
		t.Errorf("after the restart: %+v", s)
	}
	if status, _ := g.get("/"); status != 404 {
		t.Errorf("other host: %d", status)
	}
	wantFault(t, g.Apply(t.Context(), shop, web(6, g.addr, "", "/")), fault.Conflict)
}

func TestAddressTakenAtRestartIsOpenedLater(t *testing.T) {
	g := newRig(t)
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.start(Config{RunDir: g.dir})
	if g.describe().Listening {
		t.Error("says it listens")
	}
	taken.Close()
	g.await("the address to be opened", func() bool { return g.describe().Listening })
	if _, body := g.get("/"); body != "a" {
		t.Errorf("%q answers", body)
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	g := newRig(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(statePath(g.dir), []byte(`{"environments":[{"app":`), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start(Config{RunDir: g.dir})
	if _, err := os.Stat(statePath(g.dir) + ".damaged"); err != nil {
		t.Error(err)
	}
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
}

func TestOneRouterPerRunDirectory(t *testing.T) {
	g := newRig(t)
	wantFault(t, Serve(t.Context(), Config{RunDir: g.dir}), fault.Conflict, g.dir)
	if _, err := g.Health(t.Context()); err != nil {
		t.Errorf("the first router suffered: %v", err)
	}
	info, err := os.Stat(socketPath(g.dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
	wantFault(t, Serve(t.Context(), Config{RunDir: filepath.Join(g.dir, strings.Repeat("x", 100))}), fault.Invalid, "107")
}

func TestTablesThatCannotBeSavedAreRefused(t *testing.T) {
	g := newRig(t)
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
	err := errors.Join(os.Remove(statePath(g.dir)), os.MkdirAll(filepath.Join(statePath(g.dir), "full"), 0o700)) // nothing can take its place
	if err != nil {
		t.Fatal(err)
	}
	moved := freeAddr(t)
	wantFault(t, g.Apply(t.Context(), shop, web(2, moved, "", "/", named(t, "b"))), fault.Unavailable, "router.json")
	if _, body := g.get("/"); body != "a" {
		t.Errorf("%q answers", body)
	}
	if l, err := net.Listen("tcp", moved); err != nil {
		t.Errorf("the new address was left open: %v", err)
	} else {
		l.Close()
	}
}

func TestGracefulEndFinishesRequests(t *testing.T) {
	g := newRig(t)
	b, arrived, released := slow(t, "a")
	g.table(1, time.Minute, 0, b)
	under := g.ask("GET", "/", nil)
	<-arrived
	ended := make(chan error)
	go func() { ended <- g.stop() }()
	g.await("the address to be closed", func() bool {
		c, err := net.Dial("tcp", g.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(released)
	if r := <-under; r.body != "a" {
		t.Errorf("the request under way got %+v", r)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A router that is killed right after it acknowledged a table has that one when it is
// started again, with what is in it that it does not know, and those of other environments.
func TestKilledRouterComesBack(t *testing.T) {
	g := newRig(t)
	cmd := g.apart()
	odd := rollout.Key{App: `a"b\c`, Env: "<&>"}
	g.apply(odd, web(7, g.addr, "other.example", "/", named(t, "z")))
	for n := range 5 {
		id := fmt.Sprint("a", n)
		g.table(int64(n+1), time.Second, time.Second, named(t, id))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() //nolint:errcheck // it was killed
		cmd = g.launch()
		if status, body := g.get("/"); status != 200 || body != id {
			t.Errorf("%d %q after the restart, want %q", status, body, id)
		}
		if s, err := g.Status(t.Context(), odd); err != nil || s.Generation != 7 {
			t.Errorf("generation %d of the other environment, %v", s.Generation, err)
		}
	}
}

// What a newer server says that this router does not know is kept for the next one.
func TestUnknownKeysAreKept(t *testing.T) {
	g := newRig(t)
	b := named(t, "a")
	text := fmt.Sprintf(`{"generation":1,"listen":%q,"new":{"a":1},"services":[{"name":"web","path":"/","backends":[{"id":"a","address":%q,"weight":1}]}]}`, g.addr, b.Address)
	if err := g.do(t.Context(), "PUT", environmentPath(shop), []byte(text), nil); err != nil {
		t.Fatal(err)
	}
	g.apply(rollout.Key{App: "shop", Env: "staging"}, web(1, g.addr, "other.example", "/"))
	data, err := os.ReadFile(statePath(g.dir))
	if err != nil || !strings.Contains(string(data), text) {
		t.Errorf("router.json is %s, %v", data, err)
	}
	if _, body := g.get("/"); body != "a" {
		t.Errorf("%q answers", body)
	}
}

func FuzzTable(f *testing.F) {
	good, _ := json.Marshal(web(1, "127.0.0.1:80", "A.example.", "/x/", rollout.Backend{ID: "a", Address: "127.0.0.1:1", Weight: 1}))
	f.Add(good)
	f.Add([]byte(`{"generation":1,"services":[{"name":"a","path":"//","hold":-1}]}`))
	f.Add([]byte(`{"generation":1e99}`))
	f.Add([]byte(`{"generation":1,"listen":":443","tls":{"acme":"https://a.example/d","domains":["B.example."]},"services":[{"name":"a","path":"/","sticky":"s","match":{"header":"x-a","value":"1","release":"r"},"drains":{"grpc":1},"backends":[{"id":"x","address":"a:1","release":"r","weight":3}]}]}`))
	f.Add([]byte(`{"generation":1,"listen":"[::1]:80","services":[{"name":"a","path":"/","host":"::1","backends":[{"id":"x","address":"[::1]:1"}]}]} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := decodeTable(data)
		if err != nil {
			return
		}
		once, err := normal(shop, table)
		if err != nil {
			return
		}
		twice, err := normal(shop, once)
		if diff := cmp.Diff(once, twice); err != nil || diff != "" {
			t.Errorf("not normal: %v\n%s", err, diff)
		}
		once.TLS = nil                      // nobody is to be asked for certificates
		for _, svc := range once.Services { // every accepted route can be reached
			r := newRouter(Config{})
			if collisions(shop, once, r.envs) == nil {
				r.install(shop, once)
				if got := r.current.Load().match(once.Listen, svc.Host, svc.Path); got == nil || got.name != svc.Name {
					t.Errorf("%s%s goes to %+v, want %s", svc.Host, svc.Path, got, svc.Name)
				}
			}
		}
	})
}

func FuzzSaved(f *testing.F) {
	f.Add([]byte(`{"environments":[{"app":"a","env":"b","table":{"generation":1}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tables, err := decodeSaved(data)
		if err != nil {
			return
		}
		r := newRouter(Config{})
		for _, tb := range tables {
			tb.Table.TLS = nil // nobody is to be asked for certificates
			r.install(tb.Key, tb.Table)
		}
	})
}
