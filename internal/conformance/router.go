// This file's suite holds every router, the simulator's included, to the contract
// of engine.Router.

package conformance

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// RouterWorld is a router with what the suite needs to use it.
type RouterWorld struct {
	Router  engine.Router
	Listen  string                                        // of the tables
	Service rollout.Service                               // of the kind that this router routes: name, and host, path or ports
	Backend func(t *testing.T, id string) rollout.Backend // a new program to route to
	Visit   func(t *testing.T) *Visit                     // comes to Service and stays: a long request, or a connection
	Tick    func()                                        // called before each look at the world, for one with a clock of its own; nil: real time
}

// Visit is a request or connection that goes on until somebody ends it.
type Visit struct {
	Reached <-chan string   // gets the ID of the backend that it reached; closed without one if it was refused
	Ended   <-chan struct{} // closed when it has ended, by whomever
	Close   func()          // its client ends it; may be called again
}

// Router holds a router to its contract. Every subtest gets a world of its own.
func Router(t *testing.T, newWorld func(t *testing.T) RouterWorld) {
	tests := []struct {
		name string
		run  func(*testing.T, *routed)
	}{
		{"before the first table nothing is in force", testNoTable},
		{"the generation in force is told, and an older table is refused", testGeneration},
		{"another table of the same generation is refused", testSameGeneration},
		{"once a table is in force its backends get everything", testSwitch},
		{"weight 0 gets nothing, and all goes by weight", testWeights},
		{"a leaving backend keeps and counts what it has", testLeaving},
		{"what is left at the end of the drain time is cut and told", testCut},
		{"a backend that comes back is not cut", testComesBack},
		{"without a backend visits wait until one is there", testHeld},
		{"visits wait no longer than the hold", testHoldEnds},
		{"an environment without services is left alone by the next", testEnvironments},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, &routed{t: t, RouterWorld: newWorld(t)}) })
	}
}

type routed struct {
	t *testing.T
	RouterWorld
}

// table makes one with the world's service. Waiting times are those of a test.
func (r *routed) table(generation int64, hold, drain time.Duration, backends ...rollout.Backend) rollout.Table {
	svc := r.Service
	svc.Hold, svc.Drain, svc.Backends = hold, drain, slices.Clone(backends)
	return rollout.Table{Generation: generation, Listen: r.Listen, Services: []rollout.Service{svc}}
}

func (r *routed) apply(generation int64, hold, drain time.Duration, backends ...rollout.Backend) {
	r.t.Helper()
	if err := r.Router.Apply(context.Background(), suiteEnv, r.table(generation, hold, drain, backends...)); err != nil {
		r.t.Fatalf("apply generation %d: %v", generation, err)
	}
}

func (r *routed) refused(table rollout.Table) {
	r.t.Helper()
	err := r.Router.Apply(context.Background(), suiteEnv, table)
	if err == nil || fault.Of(err).Kind != fault.Conflict {
		r.t.Errorf("generation %d: %v, want a conflict", table.Generation, err)
	}
}

func (r *routed) status() rollout.RouterStatus {
	r.t.Helper()
	s, err := r.Router.Status(context.Background(), suiteEnv)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *routed) await(what string, so func() bool) {
	r.t.Helper()
	r.wait(what, func() <-chan struct{} {
		if so() {
			done := make(chan struct{})
			close(done)
			return done
		}
		return nil
	})
}

// wait goes on until what it looks at is closed.
func (r *routed) wait(what string, look func() <-chan struct{}) {
	r.t.Helper()
	over := time.After(20 * time.Second)
	for {
		if r.Tick != nil {
			r.Tick()
		}
		select {
		case <-look():
			return
		default:
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-over:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// reached waits until a visit has reached a backend, "" if it was refused.
func (r *routed) reached(v *Visit) (id string) {
	r.t.Helper()
	r.await("a visit to reach a backend or be refused", func() bool {
		select {
		case id = <-v.Reached:
			return true
		default:
			return false
		}
	})
	return id
}

// visit comes and reaches a backend.
func (r *routed) visit() (*Visit, string) {
	r.t.Helper()
	v := r.Visit(r.t)
	r.t.Cleanup(v.Close)
	return v, r.reached(v)
}

// visits come, are answered and go; it tells how many reached which backend.
func (r *routed) visits(n int) map[string]int {
	r.t.Helper()
	got := map[string]int{}
	for range n {
		v, id := r.visit()
		v.Close()
		got[id]++
	}
	return got
}

func testNoTable(t *testing.T, r *routed) {
	if s := r.status(); s.Generation != 0 || len(s.InFlight) != 0 {
		t.Errorf("%+v", s)
	}
}

func testGeneration(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	r.apply(5, time.Second, time.Minute, a)
	r.apply(5, time.Second, time.Minute, a) // the reply may have been lost
	if s := r.status(); s.Generation != 5 {
		t.Errorf("generation %d in force, want 5", s.Generation)
	}
	r.refused(r.table(4, time.Second, time.Minute, b))
	if s := r.status(); s.Generation != 5 {
		t.Errorf("generation %d in force after a refusal, want 5", s.Generation)
	}
	if got := r.visits(3); got["a"] != 3 {
		t.Errorf("after a refusal visits reached %v", got)
	}
	r.apply(9, time.Second, time.Minute, b)
	if s := r.status(); s.Generation != 9 {
		t.Errorf("generation %d in force, want 9", s.Generation)
	}
}

func testSameGeneration(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	r.apply(1, time.Second, time.Minute, a)
	r.refused(r.table(1, time.Second, time.Minute, b))
	if got := r.visits(3); got["a"] != 3 {
		t.Errorf("after a refusal visits reached %v", got)
	}
}

func testSwitch(t *testing.T, r *routed) {
	backends := []rollout.Backend{r.Backend(t, "a"), r.Backend(t, "b")}
	for generation := range 10 {
		b := backends[generation%2]
		r.apply(int64(generation+1), time.Second, time.Minute, b)
		if got := r.visits(3); got[b.ID] != 3 {
			t.Fatalf("generation %d: visits reached %v, want %s alone", generation+1, got, b.ID)
		}
	}
}

func testWeights(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	for generation, w := range [][2]int{{0, 100}, {100, 0}, {1, 1}} {
		a.Weight, b.Weight = w[0], w[1]
		r.apply(int64(generation+1), time.Second, time.Minute, a, b)
		const n = 20
		got := r.visits(n)
		if w[0] == 0 && got["a"] > 0 || w[1] == 0 && got["b"] > 0 || got["a"]+got["b"] != n || w[0] == w[1] && (got["a"] == 0 || got["b"] == 0) {
			t.Errorf("weights %v: %v", w, got)
		}
	}
}

func testLeaving(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	r.apply(1, time.Second, time.Minute, a)
	var open []*Visit
	for range 3 {
		v, id := r.visit()
		if id != "a" {
			t.Fatalf("reached %q", id)
		}
		open = append(open, v)
	}
	r.await("3 visits to be counted", func() bool { return r.status().InFlight["a"] == 3 })
	r.apply(2, time.Second, time.Minute, b)
	for left := 3; left > 0; left-- {
		if got := r.visits(2); got["b"] != 2 {
			t.Errorf("with a leaving visits reached %v", got)
		}
		r.await(fmt.Sprintf("%d visits to be left", left), func() bool { return r.status().InFlight["a"] == left })
		open[left-1].Close()
	}
	r.await("none to be left", func() bool { return r.status().InFlight["a"] == 0 })
	if s := r.status(); total(s.Cut["a"]) != 0 {
		t.Errorf("cut: %+v", s.Cut)
	}
}

func testCut(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	r.apply(1, time.Second, 200*time.Millisecond, a)
	v, _ := r.visit()
	r.apply(2, time.Second, time.Minute, b)
	r.wait("the visit to be cut", func() <-chan struct{} { return v.Ended })
	r.await("the cut to be told", func() bool { s := r.status(); return total(s.Cut["a"]) == 1 && s.InFlight["a"] == 0 })
}

func total(f rollout.Flight) int { return f.Requests + f.WebSockets + f.Streams + f.GRPC + f.TCP }

func testComesBack(t *testing.T, r *routed) {
	a, b := r.Backend(t, "a"), r.Backend(t, "b")
	const drain = 300 * time.Millisecond
	r.apply(1, time.Second, drain, a)
	back, _ := r.visit()
	r.apply(2, time.Second, drain, b)
	gone, _ := r.visit() // is cut, later than the other would have been
	r.apply(3, time.Second, drain, a)
	r.wait("the visit of b to be cut", func() <-chan struct{} { return gone.Ended })
	select {
	case <-back.Ended:
		t.Error("the visit of the backend that came back was cut")
	default:
	}
	r.await("it to be counted still", func() bool { return r.status().InFlight["a"] == 1 })
}

func testHeld(t *testing.T, r *routed) {
	r.apply(1, 10*time.Second, time.Minute)
	v := r.Visit(t)
	t.Cleanup(v.Close)
	r.apply(2, 10*time.Second, time.Minute, r.Backend(t, "a"))
	if id := r.reached(v); id != "a" {
		t.Errorf("reached %q", id)
	}
}

func testHoldEnds(t *testing.T, r *routed) {
	r.apply(1, 100*time.Millisecond, time.Minute)
	if v, id := r.visit(); id != "" {
		t.Errorf("reached %q", id)
	} else {
		r.wait("the refused visit to end", func() <-chan struct{} { return v.Ended })
	}
}

func testEnvironments(t *testing.T, r *routed) {
	r.apply(7, time.Second, time.Minute, r.Backend(t, "a"))
	ctx := context.Background()
	if s, err := r.Router.Status(ctx, otherEnv); err != nil || s.Generation != 0 || len(s.InFlight) != 0 {
		t.Errorf("the other environment: %+v %v", s, err)
	}
	if err := r.Router.Apply(ctx, otherEnv, rollout.Table{Generation: 3}); err != nil {
		t.Fatal(err)
	}
	if s := r.status(); s.Generation != 7 {
		t.Errorf("generation %d in force, want 7", s.Generation)
	}
	if got := r.visits(2); got["a"] != 2 {
		t.Errorf("visits reached %v", got)
	}
}
