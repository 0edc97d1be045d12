package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var shop = rollout.Key{App: "shop", Env: "production"}

// rig is a running router with its client.
type rig struct {
	*Client
	t    testing.TB
	dir  string
	addr string // a free address to listen on
	stop func() error
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "router") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &rig{t: t, dir: dir, addr: freeAddr(t)}
	g.start(Config{RunDir: dir, Grace: 2 * time.Second})
	return g
}

// start runs a router in the rig's directory.
func (g *rig) start(cfg Config) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(g.t.Output(), nil))
	}
	go func() { ended <- Serve(ctx, cfg) }()
	g.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	stop := g.stop
	g.t.Cleanup(func() {
		if err := stop(); err != nil {
			g.t.Errorf("router ended with %v", err)
		}
	})
	g.Client = Dial(g.dir)
	g.await("the router to answer", func() bool { _, err := g.Health(ctx); return err == nil })
}

// await polls until something is so.
func (g *rig) await(what string, so func() bool) {
	g.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	over := time.After(10 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-over:
			g.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// table puts one service at / with the given backends in force.
func (g *rig) table(generation int64, hold, drain time.Duration, backends ...rollout.Backend) {
	g.t.Helper()
	g.apply(shop, rollout.Table{Generation: generation, Listen: g.addr, Services: []rollout.Service{
		{Name: "web", Path: "/", Hold: hold, Drain: drain, Backends: backends},
	}})
}

func (g *rig) apply(env rollout.Key, table rollout.Table) {
	g.t.Helper()
	if err := g.Apply(context.Background(), env, table); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) describe() Status {
	g.t.Helper()
	s, err := g.Describe(context.Background(), shop)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g *rig) url(path string) string { return "http://" + g.addr + path }

// get asks once and gives status and body.
func (g *rig) get(path string) (int, string) {
	g.t.Helper()
	resp, err := http.Get(g.url(path))
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, read(g.t, resp)
}

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := load.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// instance starts a backend program.
func instance(t testing.TB, id string, h http.HandlerFunc) (rollout.Backend, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return rollout.Backend{ID: id, Address: s.Listener.Addr().String(), Weight: 1}, s
}

// named answers with its own ID.
func named(t testing.TB, id string) rollout.Backend {
	b, _ := instance(t, id, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, id) })
	return b
}

// slow answers once released is closed, and tells when a request has arrived.
func slow(t testing.TB, id string) (b rollout.Backend, arrived, released chan struct{}) {
	arrived, released = make(chan struct{}, 100), make(chan struct{})
	b, _ = instance(t, id, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // net/http watches for the end of the connection only after that
		arrived <- struct{}{}
		select {
		case <-released:
			io.WriteString(w, id)
		case <-r.Context().Done():
		}
	})
	return b, arrived, released
}

type reply struct {
	status int
	body   string
	err    error
}

// ask sends a request in the background.
func (g *rig) ask(method, path string, body io.Reader) <-chan reply {
	out := make(chan reply, 1)
	go func() {
		req, err := http.NewRequest(method, g.url(path), body)
		if err != nil {
			out <- reply{err: err}
			return
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			out <- reply{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		out <- reply{resp.StatusCode, string(b), err}
	}()
	return out
}

// upgrade opens a raw connection and switches it to the protocol "echo".
func (g *rig) upgrade() (net.Conn, *bufio.Reader) {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), "echo") {
		g.t.Fatalf("upgrade answered with %s", resp.Status)
	}
	return c, r
}

// echoes is an instance that upgrades and then sends back whatever comes.
func echoes(t testing.TB, id string) rollout.Backend {
	b, _ := instance(t, id, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, rw)
	})
	return b
}
