package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestRouter holds the made-up router to what the real ones are held to. Visits that wait
// for a backend are the test's: in a simulation nobody waits.
func TestRouter(t *testing.T) {
	conformance.Router(t, func(*testing.T) conformance.RouterWorld {
		w := newWorld(1)
		w.faults = false
		g := &guests{w: w, env: rollout.Key{App: "conformance", Env: "suite"}}
		return conformance.RouterWorld{
			Router: router{w}, Listen: "127.0.0.1:80", Service: rollout.Service{Name: "web", Path: "/"},
			Backend: func(_ *testing.T, id string) rollout.Backend {
				w.place(&unit{Instance: rollout.Instance{ID: id, Component: "web"}, env: g.env, readyAt: w.now})
				return rollout.Backend{ID: id, Address: id + ":80", Weight: 1}
			},
			Visit: g.visit,
			Tick: func() {
				w.advance(w.now.Add(10 * time.Millisecond))
				g.settle()
			},
		}
	})
}

// guests are visits, which know their request by the moment in which it would end.
type guests struct {
	w    *world
	env  rollout.Key
	open []*guest
	came int
}

type guest struct {
	since, till time.Time
	reached     chan string
	ended       chan struct{}
	waits       bool
}

func (g *guests) visit(*testing.T) *conformance.Visit {
	g.came++
	v := &guest{since: g.w.now, till: g.w.now.Add(never + time.Duration(g.came)), reached: make(chan string, 1), ended: make(chan struct{}), waits: true}
	g.open = append(g.open, v)
	g.settle()
	return &conformance.Visit{Reached: v.reached, Ended: v.ended, Close: func() {
		g.w.requests = slices.DeleteFunc(g.w.requests, v.is)
		g.settle()
	}}
}

func (v *guest) is(r request) bool { return r.till.Equal(v.till) }

// settle lets those that wait in, as far as there is a backend, and tells those that ended.
func (g *guests) settle() {
	g.open = slices.DeleteFunc(g.open, func(v *guest) bool {
		var svc rollout.Service
		if all := g.w.tables[g.env].Services; len(all) > 0 {
			svc = all[0]
		}
		if v.waits {
			if b := g.w.pick(&svc); b != nil {
				v.waits = false
				g.w.requests = append(g.w.requests, request{backend: b.ID, till: v.till})
				v.reached <- b.ID
			}
		}
		over := v.waits && g.w.now.Sub(v.since) > svc.Hold || !v.waits && !slices.ContainsFunc(g.w.requests, v.is)
		if over {
			close(v.reached)
			close(v.ended)
		}
		return over
	})
}
