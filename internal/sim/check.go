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
		if have >= c.Replicas {
			w.debt[name] = 0
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

// promised is the smaller of what the releases on both sides of a rollout declare.
func (w *world) promised(s rollout.State, c rollout.Component) int {
	need := c.Replicas
	if s.Rollout == nil {
		return need
	}
	for _, t := range []*rollout.Target{s.Rollout.From, &s.Rollout.To} {
		if t == nil {
			continue
		}
		for _, other := range t.Components {
			if other.Name == c.Name {
				need = min(need, other.Replicas)
			}
		}
	}
	if s.Rollout.From == nil {
		return 0
	}
	return need
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

// atRest says whether everything is as the live release declares, and nothing else is there.
func (r *runner) atRest() bool {
	s := r.state()
	if r.rest < 2 || s.Rollout != nil || len(r.w.late) > 0 || r.w.tables[theKey].Generation != s.Table.Generation {
		return false
	}
	wanted := 0
	if s.Current != nil {
		for _, c := range s.Current.Components {
			wanted += c.Replicas
			if bad := r.hopeless(s, c); bad {
				return len(r.w.late) == 0 // it went live and then showed what it is; it is being replaced for ever
			}
		}
	}
	return len(s.Instances) == wanted && len(r.w.units) == wanted
}

// hopeless says whether a live component's program flaps by its nature.
func (r *runner) hopeless(s rollout.State, c rollout.Component) bool {
	rel := r.w.releases[s.Current.Release]
	return rel.Environments[theKey.Env].Components[c.Name].Spec.Env["behaviour"] == "flaps"
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
		case "rollout.put-back":
			open--
			r.w.counts.PutBack++
		case "instance.ordered":
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
