package router

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// apply replaces one environment's table, of which text is what came. Everything that can fail comes first:
// checks, opening the address, writing the file. Then the snapshot is swapped and
// the backends that left are shut; from there on it cannot fail.
func (r *router) apply(ctx context.Context, key rollout.Key, table rollout.Table, text []byte) error {
	table, err := normal(key, table)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending() || r.retiring.Load() {
		return fault.New(fault.Unavailable, "the router is ending").At(key.String()).Mend("ask again")
	}
	known, err := r.inForce(key, table)
	if known {
		r.before.pass(key, table) // it may not have got that far the last time
	}
	if known || err != nil {
		return err
	}
	if err := collisions(key, table, r.envs); err != nil {
		return err
	}
	if err := onlyOne(key, table, r.envs); err != nil {
		return err
	}
	if err := checkTLS(table.TLS); err != nil {
		return err
	}
	opened, err := r.openFor(ctx, table)
	if err != nil {
		return err
	}
	if err := r.persist(key, text); err != nil {
		if opened != nil {
			opened.abandon()
		}
		return err
	}
	r.install(key, table)
	if opened != nil {
		r.serve(opened)
	}
	r.closeUnused()
	r.before.pass(key, table)
	r.log.Info("table in force", "app", key.App, "env", key.Env, "generation", table.Generation, "services", len(table.Services))
	return nil
}

// inForce compares a table with the one in force: the same again is fine and
// needs nothing, an older one or another one of the same generation is refused.
func (r *router) inForce(key rollout.Key, table rollout.Table) (bool, error) {
	env := r.envs[key]
	if env == nil || table.Generation > env.table.Generation {
		return false, nil
	}
	if table.Generation < env.table.Generation {
		return false, fault.New(fault.Conflict, "generation %d is older than generation %d, which is in force", table.Generation, env.table.Generation).
			At(key.String()).Mend("if the server's state was reset on purpose: stop the router, remove its router.json, start it again")
	}
	if !reflect.DeepEqual(table, env.table) {
		return false, fault.New(fault.Conflict, "generation %d is in force with other content", table.Generation).At(key.String())
	}
	return true, nil
}

// install makes the table the one in force. When it returns, backends that are
// not in it, or take nothing by it, take no new request.
func (r *router) install(key rollout.Key, table rollout.Table) {
	old := r.envs[key]
	if old == nil {
		old = &environment{}
	}
	next := &environment{table: table, backends: make(map[string]*backend, len(old.backends)), counters: map[string]*counters{}, cuts: old.cuts, cutTotal: old.cutTotal, leaving: old.leaving}
	next.keepTraffic(old, time.Now())
	for _, svc := range table.Services {
		next.counters[svc.Name] = old.countersOf(svc.Name)
		for _, b := range svc.Backends {
			next.backends[b.ID] = next.adopt(old, b)
		}
	}
	for _, svc := range table.Services {
		for _, b := range svc.Backends {
			if takes(svc, b) {
				next.backends[b.ID].open()
			}
		}
	}
	r.envs[key] = next
	r.identify()

	was := r.current.Swap(r.arrange())
	r.shutRest(key, old, next)
	close(was.replaced)
}

// countersOf keeps a service's counters over its tables.
func (e *environment) countersOf(name string) *counters {
	if c := e.counters[name]; c != nil {
		return c
	}
	return &counters{}
}

// adopt finds the backend where it was, in the table before or among those that
// are leaving (then its drain ends: its requests are welcome again), or makes it.
func (e *environment) adopt(old *environment, want rollout.Backend) *backend {
	if b := old.backends[want.ID]; b != nil && b.address == want.Address {
		return b
	}
	for i, b := range e.leaving {
		if b.id == want.ID && b.address == want.Address {
			b.stopTimers()
			e.leaving = slices.Delete(slices.Clone(e.leaving), i, i+1)
			return b
		}
	}
	return newBackend(want.ID, want.Address)
}

// arrange makes the snapshot of all environments.
func (r *router) arrange() *snapshot {
	services := map[string][]*service{}
	for key, env := range r.envs {
		for _, in := range env.table.Services {
			svc := &service{env: key, name: in.Name, host: in.Host, path: in.Path, hold: in.Hold, counters: env.counters[in.Name]}
			if svc.path == "/" {
				svc.path = ""
			}
			svc.arrange(in, env.backends, env.traffic)
			services[env.table.Listen] = append(services[env.table.Listen], svc)
		}
	}
	return newSnapshot(services)
}

// shutRest shuts every backend that takes nothing by the new table and starts the
// drain of those that are not in it.
func (r *router) shutRest(key rollout.Key, old, next *environment) {
	for _, svc := range next.table.Services {
		for _, b := range svc.Backends {
			if !takes(svc, b) {
				next.backends[b.ID].shut()
			}
		}
	}
	for _, svc := range old.table.Services {
		for _, in := range svc.Backends {
			b := old.backends[in.ID]
			if next.backends[in.ID] == b {
				continue
			}
			if b.shut(); b.inFlight() == 0 {
				b.forget() // and none can come any more
				continue
			}
			next.leaving = append(next.leaving, b)
			r.startDrain(key, b, budgetsOf(svc))
		}
	}
	next.prune()
}

// startDrain gives what a leaving backend has its time, by kind.
func (r *router) startDrain(key rollout.Key, b *backend, times budgets) {
	b.leaving++
	left := b.leaving
	longest := slices.Max(times[:])
	for d, set := range times.byTime() {
		b.timers = append(b.timers, time.AfterFunc(d, func() { r.drained(key, b, left, set, d == longest) }))
	}
}

// prune forgets backends that left and have nothing under way any more.
func (e *environment) prune() {
	e.leaving = slices.DeleteFunc(e.leaving, func(b *backend) bool {
		if b.inFlight() > 0 {
			return false
		}
		b.forget()
		return true
	})
}

// drained cuts what a backend still has of some kinds when their drain time is over.
// left says which of its leavings that is about, and last that nothing remains.
func (r *router) drained(key rollout.Key, b *backend, left int, set kindSet, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	env := r.envs[key]
	i := slices.Index(env.leaving, b)
	if i < 0 || b.leaving != left {
		return // done already, or it came back
	}
	hit := b.cut(set)
	if last {
		env.leaving = slices.Delete(env.leaving, i, i+1)
		b.forget()
	}
	if hit.sum() == 0 {
		return
	}
	env.noteCut(b.id, hit.flight(), time.Now())
	r.log.Warn("drain time is over, requests cut", "app", key.App, "env", key.Env, "backend", b.id,
		"requests", hit[plain], "websockets", hit[webSocket], "streams", hit[stream], "grpc", hit[grpc])
}

// noteCut remembers what was cut, for a while by backend.
func (e *environment) noteCut(id string, f rollout.Flight, now time.Time) {
	cuts := map[string]cut{}
	for id, c := range e.cuts {
		if now.Sub(c.at) < cutsKept {
			cuts[id] = c
		}
	}
	cuts[id] = cut{plus(cuts[id].Flight, f), now}
	e.cuts = cuts
	e.cutTotal = plus(e.cutTotal, f)
}
