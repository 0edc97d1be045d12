package sim

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// check looks at the invariants of one environment that have to hold at any time.
func (w *world) check(key rollout.Key, s rollout.State) {
	w.checkCapacity(key, s)
	w.checkShares(key, s)
	w.checkPutBack(s)
}

// checkCapacity is I3: what is routed and answers never falls below what the live
// release declares, or what it has in common with the one it is changing to,
// except for instances that injected faults took and nobody could have saved.
// It also is I2's half that needs no policy: nothing is routed that was never ready.
func (w *world) checkCapacity(key rollout.Key, s rollout.State) {
	if s.Current == nil {
		return
	}
	for _, c := range s.Current.Components {
		if c.Route == nil || !w.declared(key, c) {
			continue
		}
		at := place{key, c.Name}
		have := w.capacity(at)
		need := w.promised(at, s, c)
		if have >= most(s, c) {
			w.whole[at] = true
			// A table that was ordered when a fault had taken an instance may still be under
			// way, and take out what has recovered since: until it is in force nothing is made up for.
			if w.tables[key].Generation == s.Table.Generation {
				w.debt[at] = 0
			}
		}
		if have < need-w.debt[at] {
			w.violate("I3", "%s %s: %d instances answer, %d are promised, faults took %d", key, c.Name, have, need, w.debt[at])
		}
	}
}

// declared says whether the component has been live before this moment, so that
// its capacity was reached once.
func (w *world) declared(key rollout.Key, c rollout.Component) bool {
	t := w.tables[key]
	return slices.ContainsFunc(t.Services, func(v rollout.Service) bool { return v.Name == c.Name })
}

// promised is the smaller of what the releases on both sides of a rollout declare,
// without what their strategy says may be missing.
func (w *world) promised(at place, s rollout.State, c rollout.Component) int {
	r := s.Rollout
	if r == nil {
		if last := s.LastResult; last != nil && last.Outcome == rollout.PutBack && !w.whole[at] {
			return 0 // it was taken away for a release that failed, and could not be started again in time
		}
		return c.Replicas
	}
	if r.From == nil {
		return 0
	}
	from, to := named(r.From, c.Name), named(&r.To, c.Name)
	if from == nil || to == nil {
		return min(c.Replicas, 0)
	}
	need := min(from.Replicas, to.Replicas)
	switch {
	case from.Spec == to.Spec:
	case alone(from, rollout.Strategy{}) || alone(to, r.To.Strategy):
		w.whole[at] = false
		return 0
	case r.To.Strategy.Kind == rollout.Rolling:
		return max(need-r.To.Strategy.Unavailable, 0)
	}
	return need
}

// most is the larger of what the releases on both sides declare.
func most(s rollout.State, c rollout.Component) int {
	n := c.Replicas
	if r := s.Rollout; r != nil {
		for _, t := range []*rollout.Target{r.From, &r.To} {
			if t == nil {
				continue
			}
			if o := named(t, c.Name); o != nil {
				n = max(n, o.Replicas)
			}
		}
	}
	return n
}

func alone(c *rollout.Component, s rollout.Strategy) bool {
	return s.Kind == rollout.Recreate || c.Kind == rollout.KindWorker || c.Kind == rollout.KindSingleton || len(c.Volumes) > 0
}

func named(t *rollout.Target, name string) *rollout.Component {
	for i := range t.Components {
		if t.Components[i].Name == name {
			return &t.Components[i]
		}
	}
	return nil
}

// checkShares is that weights are what the stage declares: none is none, and both
// sides get their share whatever the numbers of instances.
func (w *world) checkShares(key rollout.Key, s rollout.State) {
	r := s.Rollout
	if r == nil || r.Step != rollout.Shifting || r.StageAt.IsZero() || w.tables[key].Generation != s.Table.Generation {
		return
	}
	specs := map[string]string{}
	for _, o := range s.Instances {
		specs[o.ID] = string(o.Spec)
	}
	for _, svc := range w.tables[key].Services {
		from, to := named(r.From, svc.Name), named(&r.To, svc.Name)
		if from == nil || to == nil || from.Spec == to.Spec || alone(from, rollout.Strategy{}) || alone(to, r.To.Strategy) {
			continue
		}
		newer, older := 0, 0
		for _, b := range svc.Backends {
			if specs[b.ID] == string(to.Spec) {
				newer += b.Weight
			} else {
				older += b.Weight
			}
		}
		if newer > 0 && older > 0 && newer*(100-r.Share) != older*r.Share {
			w.violate("weights", "%s: %d for the new and %d for the old ones are not %d %%", svc.Name, newer, older, r.Share)
		}
	}
}

// checkPutBack is that a rollback to a proven release is not rolled back by itself.
func (w *world) checkPutBack(s rollout.State) {
	if r := s.Rollout; r != nil && r.Proven && r.Step == rollout.Reverting && !r.Failure.Blameless && !r.SwitchAt.IsZero() {
		w.violate("rollback", "a rollback to a proven release is put back: %s", r.Failure.What)
	}
}

// capacity counts the routed instances of a component that answer.
func (w *world) capacity(at place) int {
	n := 0
	for _, s := range w.tables[at.env].Services {
		for _, b := range s.Backends {
			if s.Name != at.component {
				continue
			}
			u := w.units[b.ID]
			if u != nil && w.now.Before(u.readyAt) {
				w.violate("I2", "%s is routed and was never ready", b.ID)
			}
			if u != nil && u.answering(w.now) && !u.stopping {
				n++
			}
		}
	}
	return n
}

// checkOnHand is I5: a rollout may not begin while something it needs is missing.
func (r *runner) checkOnHand(key rollout.Key, d digest.Digest) {
	for _, c := range r.w.releases[d].Environments[key.Env].Components {
		if r.w.missing[c.Spec.Tree] {
			r.w.violate("I5", "a rollout began although tree %s is not on hand", c.Spec.Tree)
		}
	}
}

// atRest says whether everything is as the live release declares, and nothing else is
// there but a job that runs or a set that is kept warm.
func (r *runner) atRest() bool {
	return len(r.w.late)+len(r.w.lateTables) == 0 && !slices.ContainsFunc(r.tended, func(t *tended) bool { return !r.rests(t) })
}

func (r *runner) rests(t *tended) bool {
	s := r.state(t.key)
	if t.rest < 2 || s.Rollout != nil || len(s.Queue) > 0 || s.Warm != nil || r.w.tables[t.key].Generation != s.Table.Generation {
		return false
	}
	wanted := 0
	if s.Current != nil {
		for i := range s.Current.Components {
			c := &s.Current.Components[i]
			if c.Kind == rollout.KindJob {
				continue
			}
			wanted += c.Replicas
			if r.hopeless(t.key, s, c) {
				return true // it went live and then showed what it is; it is being replaced for ever
			}
		}
	}
	orders, units := 0, 0
	for _, o := range s.Instances {
		if o.Hook == "" {
			orders++
		}
	}
	for _, u := range r.w.units {
		if u.Hook == "" && u.env == t.key {
			units++
		}
	}
	return orders == wanted && units == wanted
}

// hopeless says whether a live component's program flaps by its nature, or cannot work:
// what was put back to had been taken away and may be anything.
func (r *runner) hopeless(key rollout.Key, s rollout.State, c *rollout.Component) bool {
	rel := r.w.releases[s.Current.Release]
	b := rel.Environments[key.Env].Components[c.Name].Spec.Env["behaviour"]
	return b == "flaps"
}

// checkRecord is I4 and I7: the record alone tells how many rollouts began and
// ended, never two at once, and which instances are there.
func (r *runner) checkRecord() {
	all, err := r.store.Entries(context.Background(), rollout.Key{}, 0, -1)
	if err != nil {
		panic(err)
	}
	envs := map[rollout.Key]*telling{}
	for _, key := range r.w.envs {
		envs[key] = &telling{instances: map[string]bool{}}
	}
	for _, e := range all {
		if t := envs[rollout.Key{App: e.App, Env: e.Env}]; t != nil {
			r.tellAgain(t, e)
		}
	}
	for _, key := range r.w.envs {
		s, t := r.state(key), envs[key]
		if (s.Rollout != nil) != (t.open == 1) {
			r.w.violate("I4", "the record tells of %d rollouts in flight in %s, the state differs", t.open, key)
		}
		if len(t.instances) != len(s.Instances) {
			r.w.violate("I4", "the record tells of %d instances in %s, the state of %d", len(t.instances), key, len(s.Instances))
		}
	}
}

// telling is what the record says of one environment.
type telling struct {
	open      int // rollouts in flight
	instances map[string]bool
}

func (r *runner) tellAgain(t *telling, e record.Entry) {
	counts := &r.w.counts
	switch e.Kind {
	case "rollout.begun":
		if t.open++; t.open > 1 {
			r.w.violate("I7", "rollout %d began while another was in flight", e.Rollout)
		}
	case "rollout.live":
		t.open--
		counts.Live++
	case "admission.refused":
		counts.Refused++
	case "rollout.superseded":
		t.open--
		counts.Superseded++
	case "rollout.put-back":
		t.open--
		counts.PutBack++
	case "rollout.stage":
		counts.Stages++
	case "rollout.rolled":
		counts.Rolls++
	case "hook.ordered":
		counts.Hooks++
		t.instances[e.Instance] = true
	case "instance.ordered", "instance.orphan":
		t.instances[e.Instance] = true
	case "instance.removed":
		delete(t.instances, e.Instance)
	}
}
