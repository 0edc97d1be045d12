package router

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

const takeOver = "ROUTER_TEST_TAKE_OVER=1"

// ended waits for a process.
func ended(g *rig, cmd *exec.Cmd) error {
	g.t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		g.t.Fatal("the old router does not end")
		return nil
	}
}

// kept is a client with one connection, and what it needs to see that it goes on.
type kept struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func (g *rig) keep() *kept {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return &kept{g.t, c, bufio.NewReader(c)}
}

func (k *kept) get() (body string, closing bool) {
	k.t.Helper()
	fmt.Fprintf(k.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	return read(k.t, resp), resp.Close
}

// The promise: a new router takes over, again and again under load, and no client
// of any kind notices.
func TestHandoverUnderLoadLosesNothing(t *testing.T) {
	g := newRig(t)
	old := g.apart()
	b, _ := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Version", "1")
		io.WriteString(w, strings.Repeat("stone ", 100))
	})
	g.table(1, time.Second, time.Minute, b)
	run, err := load.Start(t.Context(), load.Config{URL: g.url("/"), KeepAlive: 4, NewConn: 3, HTTP2: 2, Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	const times = 5
	for range times {
		seen := run.Report().Requests
		next := g.launch(takeOver)
		g.await("requests", func() bool { return run.Report().Requests > seen+300 })
		if err := ended(g, old); err != nil { // its clients have all moved on by then
			t.Fatal(err)
		}
		old = next
	}
	report := run.Stop()
	if report.Failed != 0 {
		t.Errorf("%d of %d requests failed: %v", report.Failed, report.Requests, report.FirstErrors)
	}
	if s := g.describe(); s.Generation != 1 || s.Services[0].Failed != 0 || s.CutTotal != (rollout.Flight{}) {
		t.Errorf("%+v", s)
	}
	t.Logf("%d requests over %d hand-overs, %d sent again by the client, p99 %s, max %s", report.Requests, times, report.Replayed, report.P99, report.Max)
}

// What is under way goes on in the old process, is counted as long as it does, and
// follows new tables; then the old process ends.
func TestOldRouterFinishesWhatItHas(t *testing.T) {
	g := newRig(t)
	old := g.apart()
	a := echoes(t, "a")
	svc := rollout.Service{Name: "web", Path: "/", Hold: time.Second, Drain: time.Minute, Backends: []rollout.Backend{a}}
	g.apply(shop, rollout.Table{Generation: 1, Listen: g.addr, Services: []rollout.Service{svc}})
	c, r := g.upgrade()
	idle := g.keep()
	idle.get()

	g.launch(takeOver)
	if s := g.describe(); s.Generation != 1 || s.InFlight["a"] != 1 || s.Kinds["a"].WebSockets != 1 || !s.Listening {
		t.Fatalf("after the hand-over: %+v", s)
	}
	if h, err := g.Health(t.Context()); err != nil || len(h.Before) != 1 || h.Before[0] != old.Process.Pid {
		t.Errorf("health %+v %v", h, err)
	}
	fmt.Fprint(c, "still there")
	if _, err := io.ReadFull(r, make([]byte, len("still there"))); err != nil {
		t.Fatal(err)
	}
	// The connection that was idle in the old router sees the new table at once.
	g.table(2, time.Second, time.Minute, named(t, "b"))
	if body, closing := idle.get(); body != "b" || !closing {
		t.Errorf("%q answers by the old router, closing %v", body, closing)
	}
	if n := g.describe().InFlight["a"]; n != 1 {
		t.Errorf("%d in flight at the leaving instance, want that of the old router", n)
	}
	c.Close()
	if err := ended(g, old); err != nil {
		t.Error(err)
	}
	g.await("the old router's requests to be gone", func() bool { _, there := g.describe().InFlight["a"]; return !there })
	if h, err := g.Health(t.Context()); err != nil || len(h.Before) != 0 {
		t.Errorf("health %+v %v", h, err)
	}
	// What the old one counted is not lost with it.
	if got := g.describe().Services[0]; got.Requests != 3 || got.Status1 != 1 {
		t.Errorf("counted %+v, want 3 requests", got)
	}
}

// What is under way longer than its drain time is cut, and said so.
func TestOldRouterCutsAtTheEndOfTheDrainTime(t *testing.T) {
	g := newRig(t)
	old := g.apart()
	svc := rollout.Service{Name: "web", Path: "/", Hold: time.Second, Drain: time.Minute, Drains: rollout.Drains{WebSocket: 300 * time.Millisecond}, Backends: []rollout.Backend{echoes(t, "a")}}
	g.apply(shop, rollout.Table{Generation: 1, Listen: g.addr, Services: []rollout.Service{svc}})
	c, r := g.upgrade()
	g.launch(takeOver)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("read from the cut connection: %v, want its end", err)
	}
	if err := ended(g, old); err != nil {
		t.Error(err)
	}
	if s := g.describe(); s.InFlight["a"] != 0 || s.CutTotal.WebSockets != 1 || s.Cut["a"].WebSockets != 1 {
		t.Errorf("%+v", s)
	}
}

// A download that takes longer than the hand-over arrives whole.
func TestDownloadOverHandover(t *testing.T) {
	g := newRig(t)
	g.apart()
	step := make(chan struct{})
	b, _ := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 20 {
			w.Write(make([]byte, 10_000))
			if http.NewResponseController(w).Flush(); i == 10 {
				<-step
			}
		}
	})
	g.table(1, time.Second, time.Minute, b)
	resp, err := http.Get(g.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, resp.Body, 100_000); err != nil {
		t.Fatal(err)
	}
	g.launch(takeOver)
	g.launch(takeOver) // and once more, over two
	if n := g.describe().InFlight["a"]; n != 1 {
		t.Errorf("%d in flight over two hand-overs, want 1", n)
	}
	if h, err := g.Health(t.Context()); err != nil || len(h.Before) != 2 {
		t.Errorf("health %+v %v", h, err)
	}
	close(step)
	if n, err := io.Copy(sum, resp.Body); n != 100_000 || err != nil {
		t.Errorf("%d more bytes, %v", n, err)
	}
}

// A successor that dies before it has everything changes nothing.
func TestFailedHandoverChangesNothing(t *testing.T) {
	g := newRig(t)
	g.apart()
	g.table(1, time.Second, time.Minute, named(t, "a"))
	for _, last := range []string{"", "ready"} {
		in, err := inherit(t.Context(), g.dir)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(in.conn, last)
		in.abandon()
		if _, body := g.get("/"); body != "a" {
			t.Errorf("%q answers", body)
		}
		if s := g.describe(); s.Generation != 1 || !s.Listening {
			t.Errorf("%+v", s)
		}
	}
	g.table(2, time.Second, time.Minute, named(t, "b"))
}

func TestTakeOverFromNobody(t *testing.T) {
	g := newRig(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.start(Config{RunDir: g.dir, TakeOver: true})
	g.table(1, 0, 0, named(t, "a"))
	in, err := inherit(t.Context(), g.dir)
	if err != nil {
		t.Fatal(err)
	}
	in.abandon()
	wantFault(t, Serve(t.Context(), Config{RunDir: g.dir}), fault.Conflict, "--take-over")
}

// When the new router is killed, the old one does not go on for ever.
func TestOldRouterEndsWithItsSuccessor(t *testing.T) {
	g := newRig(t)
	old := g.apart()
	g.table(1, 0, 100*time.Millisecond, echoes(t, "a"))
	g.upgrade()
	next := g.launch(takeOver)
	next.Process.Kill() //nolint:errcheck // it runs
	next.Wait()         //nolint:errcheck // it was killed
	if err := ended(g, old); err != nil {
		t.Error(err)
	}
	third := g.launch()
	if s := g.describe(); s.Generation != 1 || !s.Listening {
		t.Errorf("%+v", s)
	}
	third.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it runs
}

// An old router that is stuck is ended: nobody would know what it still uses.
func TestSilentOldRouterIsEnded(t *testing.T) {
	t.Parallel() // it takes as long as the old router may be silent
	g := newRig(t)
	old := g.apart()
	g.table(1, 0, time.Minute, echoes(t, "a"))
	g.upgrade()
	g.launch(takeOver)
	if err := old.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := g.Status(ctx, shop)
	if err != nil || s.InFlight["a"] != 0 {
		t.Errorf("%+v %v", s, err)
	}
	if err := old.Wait(); err == nil {
		t.Error("the old router ended by itself")
	}
}
