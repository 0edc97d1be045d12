package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// The promise: a backend that left the table can be stopped without mercy as soon
// as nothing is in flight there, and no client notices, whatever connections it uses.
func TestSwitchUnderLoadLosesNothing(t *testing.T) {
	g := newRig(t)
	const switches = 200
	start := func(n int) (rollout.Backend, *httptest.Server) {
		id := fmt.Sprintf("i%03d", n)
		return instance(t, id, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Version", id)
			io.WriteString(w, strings.Repeat("stone ", 100))
		})
	}
	old, oldServer := start(0)
	g.table(1, 2*time.Second, 5*time.Second, old)
	run, err := load.Start(t.Context(), load.Config{URL: g.url("/"), KeepAlive: 4, NewConn: 3, HTTP2: 2, Rate: 3000, MarkerHeader: "X-Version"})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= switches; n++ {
		seen := run.Report().Requests
		next, nextServer := start(n)
		g.table(int64(n+1), 2*time.Second, 5*time.Second, next)
		g.await("the old instance to have nothing in flight", func() bool { return g.describe().InFlight[old.ID] == 0 })
		oldServer.CloseClientConnections() // as a kill would
		oldServer.Listener.Close()
		old, oldServer = next, nextServer
		g.await("some requests", func() bool { return run.Report().Requests >= seen+20 })
	}
	report := run.Stop()
	if report.Failed != 0 || report.Replayed != 0 {
		t.Errorf("%d of %d requests failed, %d replayed: %v", report.Failed, report.Requests, report.Replayed, report.FirstErrors)
	}
	s := g.describe()
	if s.Services[0].Failed != 0 || s.Services[0].Retried != 0 || s.CutTotal != (rollout.Flight{}) {
		t.Errorf("the router had to mend something: %+v, cut %+v", s.Services[0], s.CutTotal)
	}
	t.Logf("%d requests over %d switches, p50 %s, p99 %s, max %s", report.Requests, switches, report.P50, report.P99, report.Max)
}

// A request that picked its backend just before the switch is either counted
// there or goes elsewhere: the count taken after shutting holds every request that
// was or will be accepted. One goroutine accepts as fast as it can meanwhile.
func TestAcquireAndShutNeverMiss(t *testing.T) {
	for round := range 3_000 {
		b := &backend{id: "a"}
		var accepted atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b.acquire() {
				accepted.Add(1)
			}
		}()
		for accepted.Load() <= int64(round%50) {
			runtime.Gosched()
		}
		b.state.Or(shutBit) // as shut does, without its slower rest
		counted := b.inFlight()
		<-done
		if n := int(accepted.Load()); n > counted || n != b.inFlight() {
			t.Fatalf("round %d: %d accepted, %d counted when shut, %d counted at the end", round, n, counted, b.inFlight())
		}
	}
}

func TestLeavingBackendFinishesWhatItHas(t *testing.T) {
	g := newRig(t)
	old, arrived, released := slow(t, "old")
	g.table(1, time.Second, time.Minute, old)
	under := g.ask("GET", "/", nil)
	<-arrived
	g.table(2, time.Second, time.Minute, named(t, "new"))
	if n := g.describe().InFlight["old"]; n != 1 {
		t.Errorf("%d in flight at the leaving backend, want 1", n)
	}
	for range 20 {
		if status, body := g.get("/"); status != 200 || body != "new" {
			t.Fatalf("%d %q after the switch", status, body)
		}
	}
	close(released)
	if r := <-under; r.err != nil || r.body != "old" {
		t.Errorf("the request under way got %+v", r)
	}
	g.await("the old backend to be gone", func() bool { _, there := g.describe().InFlight["old"]; return !there })
}

func TestDrainTimeCutsWhatIsLeft(t *testing.T) {
	g := newRig(t)
	old := echoes(t, "old")
	g.table(1, time.Second, 50*time.Millisecond, old)
	c, r := g.upgrade()
	g.table(2, time.Second, time.Hour, named(t, "new"))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("read from the cut connection: %v, want its end", err)
	}
	g.await("the cut to be counted", func() bool { s := g.describe(); return s.CutTotal.WebSockets == 1 && len(s.InFlight) == 1 })
}

func TestNoDrainCutsAtOnce(t *testing.T) {
	g := newRig(t)
	old, arrived, _ := slow(t, "old")
	g.table(1, time.Second, 0, old)
	under := g.ask("POST", "/", strings.NewReader("x"))
	<-arrived
	g.table(2, time.Second, 0, named(t, "new"))
	if r := <-under; r.err != nil || r.status != http.StatusBadGateway {
		t.Errorf("the request under way got %+v, want 502", r)
	}
	g.await("the cut to be counted", func() bool { return g.describe().CutTotal.Requests == 1 })
}

// Asking again does no harm, so the client of a cut GET gets its answer from the new backend.
func TestCutGetIsAskedAgain(t *testing.T) {
	g := newRig(t)
	old, arrived, _ := slow(t, "old")
	g.table(1, time.Second, 50*time.Millisecond, old)
	under := g.ask("GET", "/", nil)
	<-arrived
	g.table(2, time.Second, time.Second, named(t, "new"))
	if r := <-under; r.err != nil || r.body != "new" {
		t.Errorf("the request under way got %+v", r)
	}
}

// A rollback while the old drains: what is under way there is not cut any more.
func TestBackendThatComesBackIsNotCut(t *testing.T) {
	g := newRig(t)
	old, arrived, released := slow(t, "old")
	brief := 100 * time.Millisecond
	g.table(1, time.Second, brief, old)
	under := g.ask("GET", "/", nil)
	<-arrived
	g.table(2, time.Second, brief, named(t, "new"))
	g.table(3, time.Second, brief, old)
	over := time.After(3 * brief)
	again := g.ask("GET", "/", nil)
	<-arrived
	if n := g.describe().InFlight["old"]; n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	<-over
	close(released)
	for _, r := range []reply{<-under, <-again} {
		if r.err != nil || r.body != "old" {
			t.Errorf("a request got %+v", r)
		}
	}
	if cut := g.describe().CutTotal; cut != (rollout.Flight{}) {
		t.Errorf("%+v cut", cut)
	}
}

func TestWeightZeroGetsNothing(t *testing.T) {
	g := newRig(t)
	a, b := named(t, "a"), named(t, "b")
	g.table(1, time.Second, time.Second, a, b)
	a.Weight = 0
	g.table(2, time.Second, time.Second, a, b)
	for range 20 {
		if _, body := g.get("/"); body != "b" {
			t.Fatalf("%q answered", body)
		}
	}
	if _, there := g.describe().InFlight["a"]; !there {
		t.Error("a backend of the table is not in the status")
	}
	a.Weight = 1
	g.table(3, time.Second, time.Second, a)
	if _, body := g.get("/"); body != "a" {
		t.Errorf("%q answered after the weight came back", body)
	}
}

func TestSwitchIsOneStepForAllServices(t *testing.T) {
	g := newRig(t)
	version := func(n int) rollout.Table {
		api, web := named(t, fmt.Sprintf("api%d", n)), named(t, fmt.Sprintf("web%d", n))
		return rollout.Table{Generation: int64(n), Listen: g.addr, Services: []rollout.Service{
			{Name: "api", Path: "/api", Hold: time.Second, Drain: time.Second, Backends: []rollout.Backend{api}},
			{Name: "web", Path: "/", Hold: time.Second, Drain: time.Second, Backends: []rollout.Backend{web}},
		}}
	}
	g.apply(shop, version(1))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_, first := g.get("/api/x")
			_, second := g.get("/")
			if strings.TrimPrefix(first, "api") > strings.TrimPrefix(second, "web") {
				t.Errorf("%s was followed by %s", first, second)
			}
		}
	})
	for n := 2; n <= 9; n++ {
		g.apply(shop, version(n))
	}
	cancel()
	wg.Wait()
}
