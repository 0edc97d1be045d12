package sim

import (
	"context"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// checkCapacity is I3: what is routed and answers never falls below what the live
// release declares, or what it has in common with the one it is changing to,
// except for instances that injected faults took and nobody could have saved.
// It also is I2's half that needs no policy: nothing is routed that was never ready.
func (w *world) checkCapacity(s rollout.State) {
	if s.Current == nil {
		return
	}
	for _, c := range s.Current.Components {
		if c.Route == nil || !w.declared(s, c) {
			continue
		}
		name := theKey.String() + "/" + c.Name
		have := w.capacity(c.Name)
		need := w.promised(s, c)
		if have >= most(s, c) {
			w.whole[c.Name] = true
			// A table that was ordered when a fault had taken an instance may still be under
			// way, and take out what has recovered since: until it is in force nothing is made up for.
			if w.tables[theKey].Generation == s.Table.Generation {
				w.debt[name] = 0
			}
		}
		if have < need-w.debt[name] {
			w.violate("I3", "%s: %d instances answer, %d are promised, faults took %d", c.Name, have, need, w.debt[name])
		}
	}
}

// declared says whether the component has been live before this moment, so that
// its capacity was reached once.
func (w *world) declared(s rollout.State, c rollout.Component) bool {
	t := w.tables[theKey]
	return slices.ContainsFunc(t.Services, func(v rollout.Service) bool { return v.Name == c.Name })
}

// promised is the smaller of what the releases on both sides of a rollout declare,
// without what their strategy says may be missing.
func (w *world) promised(s rollout.State, c rollout.Component) int {
	r := s.Rollout
	if r == nil {
		if last := s.LastResult; last != nil && last.Outcome == rollout.PutBack && !w.whole[c.Name] {
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
		w.whole[c.Name] = false
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
func (w *world) checkShares(s rollout.State) {
	r := s.Rollout
	if r == nil || r.Step != rollout.Shifting || r.StageAt.IsZero() || w.tables[theKey].Generation != s.Table.Generation {
		return
	}
	specs := map[string]string{}
	for _, o := range s.Instances {
		specs[o.ID] = string(o.Spec)
	}
	for _, svc := range w.tables[theKey].Services {
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
func (w *world) capacity(component string) int {
	n := 0
	for _, s := range w.tables[theKey].Services {
		for _, b := range s.Backends {
			if s.Name != component {
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
func (r *runner) checkOnHand(rel release.Release) {
	for _, c := range rel.Environments[theKey.Env].Components {
		if r.w.missing[c.Spec.Tree] {
			r.w.violate("I5", "a rollout began although tree %s is not on hand", c.Spec.Tree)
		}
	}
}

// atRest says whether everything is as the live release declares, and nothing else is
// there but a job that runs or a set that is kept warm.
func (r *runner) atRest() bool {
	s := r.state()
	if r.rest < 2 || s.Rollout != nil || len(s.Queue) > 0 || len(r.w.late) > 0 || s.Warm != nil || r.w.tables[theKey].Generation != s.Table.Generation {
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
			if r.hopeless(s, c) {
				return len(r.w.late) == 0 // it went live and then showed what it is; it is being replaced for ever
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
		if u.Hook == "" {
			units++
		}
	}
	return orders == wanted && units == wanted
}

// hopeless says whether a live component's program flaps by its nature, or cannot work:
// what was put back to had been taken away and may be anything.
func (r *runner) hopeless(s rollout.State, c *rollout.Component) bool {
	rel := r.w.releases[s.Current.Release]
	b := rel.Environments[theKey.Env].Components[c.Name].Spec.Env["behaviour"]
	return b == "flaps"
}

// checkRecord is I4 and I7: the record alone tells how many rollouts began and
// ended, never two at once, and which instances are there.
func (r *runner) checkRecord() {
	all, err := r.store.Entries(context.Background(), rollout.Key{}, 0, -1)
	if err != nil {
		panic(err)
	}
	open, instances := 0, map[string]bool{}
	for _, e := range all {
		switch e.Kind {
		case "rollout.begun":
			if open++; open > 1 {
				r.w.violate("I7", "rollout %d began while another was in flight", e.Rollout)
			}
		case "rollout.live":
			open--
			r.w.counts.Live++
		case "rollout.superseded":
			open--
			r.w.counts.Superseded++
		case "rollout.put-back":
			open--
			r.w.counts.PutBack++
		case "rollout.stage":
			r.w.counts.Stages++
		case "rollout.rolled":
			r.w.counts.Rolls++
		case "hook.ordered":
			r.w.counts.Hooks++
			instances[e.Instance] = true
		case "instance.ordered", "instance.orphan":
			instances[e.Instance] = true
		case "instance.removed":
			delete(instances, e.Instance)
		}
	}
	s := r.state()
	if (s.Rollout != nil) != (open == 1) {
		r.w.violate("I4", "the record tells of %d rollouts in flight, the state differs", open)
	}
	if len(instances) != len(s.Instances) {
		r.w.violate("I4", "the record tells of %d instances, the state of %d", len(instances), len(s.Instances))
	}
}
