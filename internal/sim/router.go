package sim

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// router is the made-up data plane.
type router struct{ w *world }

var _ engine.Router = router{}

// lateTable is a table that was lost on the way and arrives after all.
type lateTable struct {
	at    time.Time
	env   rollout.Key
	table rollout.Table
}

func (r router) Apply(_ context.Context, env rollout.Key, t rollout.Table) error {
	w := r.w
	w.mayCrash("before route " + t.String())
	switch {
	case w.now.Before(w.routerOut) || w.chance(0.02):
		return errPartition
	case w.chance(0.02):
		w.lateTables = append(w.lateTables, lateTable{w.now.Add(w.between(0, 3*time.Second)), env, t})
		return errLost
	}
	if err := w.enforce(env, t); err != nil {
		return err
	}
	w.mayCrash("after route " + t.String())
	if w.chance(0.03) {
		return errLost
	}
	return nil
}

// enforce puts a table in force, unless a newer one is.
func (w *world) enforce(env rollout.Key, t rollout.Table) error {
	old := w.tables[env]
	switch {
	case t.Generation < old.Generation:
		return fault.New(fault.Conflict, "table %d is older than %d", t.Generation, old.Generation)
	case t.Generation == old.Generation && !reflect.DeepEqual(t, old):
		return fault.New(fault.Conflict, "table %d is in force with other content", t.Generation)
	}
	w.checkAdmitted(env, t)
	w.tables[env] = t
	w.routedSet = nil
	for _, s := range t.Services {
		for _, b := range s.Backends {
			delete(w.left, b.ID)
		}
	}
	for _, s := range old.Services {
		for _, b := range s.Backends {
			if !w.routed(b.ID) {
				w.left[b.ID] = leftRoute{w.now, s}
			}
		}
	}
	w.tell("world: %s routes %s", env, t)
	return nil
}

func (r router) Status(_ context.Context, env rollout.Key) (rollout.RouterStatus, error) {
	w := r.w
	if w.chance(0.005) {
		w.routerOut = w.now.Add(w.between(0, 5*time.Second))
		w.tell("fault: the router's control is gone until %s", w.routerOut.Sub(epoch))
	}
	if w.now.Before(w.routerOut) {
		return rollout.RouterStatus{}, errPartition
	}
	if w.chance(0.002) {
		clear(w.traffics)
		w.tell("fault: the router is started anew and counts from nothing")
	}
	s := rollout.RouterStatus{Generation: w.tables[env].Generation, InFlight: map[string]int{}, Kinds: map[string]rollout.Flight{}, Cut: maps.Clone(w.cuts), Traffic: maps.Clone(w.traffics[env])}
	for _, q := range w.requests {
		if w.units[q.backend] != nil && w.units[q.backend].env == env {
			s.InFlight[q.backend]++
			s.Kinds[q.backend] = counted(s.Kinds[q.backend], q.kind)
		}
	}
	return s, nil
}
