package release

import (
	"maps"
	"slices"
)

// Kind is what a change of release does to one component, in one word.
type Kind string

// The kinds of change, strongest first: a change that replaces may scale and reroute too.
const (
	Added     Kind = "added"     // was not there
	Removed   Kind = "removed"   // is no longer there
	Replaced  Kind = "replaced"  // every instance is replaced
	Rerouted  Kind = "rerouted"  // instances stay, requests arrive or drain otherwise
	Scaled    Kind = "scaled"    // instances that stay get more or fewer beside them
	Adjusted  Kind = "adjusted"  // instances stay; order, hooks, schedule or contracts change
	Unchanged Kind = "unchanged" // nothing happens
)

// ComponentChange is what a change of release does to one component of an
// environment, and why.
type ComponentChange struct {
	Component string   `json:"component"`
	Kind      Kind     `json:"kind"`
	From      int      `json:"from"` // instances before
	To        int      `json:"to"`   // instances after
	Reasons   []Reason `json:"reasons,omitempty"`
}

// Diff compares two releases in one environment: every component of either,
// sorted by name, with the reasons of its change. A nil release, or one without
// the environment, has no components.
func Diff(old, next *Release, env string) []ComponentChange {
	before, after := environment(old, env), environment(next, env)
	names := slices.AppendSeq(slices.Collect(maps.Keys(before.Components)), maps.Keys(after.Components))
	slices.Sort(names)
	var changes []ComponentChange
	for _, name := range slices.Compact(names) {
		a, had := before.Components[name]
		b, has := after.Components[name]
		change := ComponentChange{Component: name, From: a.Replicas, To: b.Replicas}
		switch {
		case !had:
			change.Kind = Added
		case !has:
			change.Kind = Removed
		default:
			change.Kind, change.Reasons = compare(before, after, a, b)
		}
		changes = append(changes, change)
	}
	return changes
}

// DiffEnvironment gives the changes of an environment's own settings, which
// replace no instance by themselves: rollout, kept releases, certificate, volumes.
func DiffEnvironment(old, next *Release, env string) []Reason {
	a, b := environment(old, env), environment(next, env)
	var rs reasons
	if a.Components == nil || b.Components == nil {
		return nil
	}
	rs.rollout(a.Rollout, b.Rollout)
	rs.number("keep", int64(a.Keep), int64(b.Keep))
	rs.add("certificate", document(a.TLS), document(b.TLS))
	rs.add("webhooks", document(a.Events), document(b.Events))
	for _, name := range eitherKey(a.Volumes, b.Volumes) {
		v, w := a.Volumes[name], b.Volumes[name]
		rs.add("volume "+name, v.Mode, w.Mode)
		if v.Mode != "" && w.Mode != "" {
			rs.add("snapshots of volume "+name, yes(v.Snapshot), yes(w.Snapshot))
		}
	}
	return rs
}

func environment(r *Release, env string) Environment {
	if r == nil {
		return Environment{}
	}
	return r.Environments[env]
}

// compare gives the strongest kind and every reason, in the order of the kinds.
func compare(before, after Environment, a, b Component) (Kind, []Reason) {
	var replaced, rerouted, scaled, beside reasons
	replaced.add("platform", before.Platform, after.Platform)
	if a.Spec.Digest() != b.Spec.Digest() {
		replaced.add("kind", a.kind(), b.kind())
		replaced.spec(a.Spec, b.Spec)
	} else {
		beside.add("kind", a.kind(), b.kind()) // of releases of older versions
	}
	if a.Route != nil && b.Route != nil {
		rerouted.add("listen address", before.Listen, after.Listen)
	}
	rerouted.route(a.Route, b.Route)
	rerouted.duration("drain time", a.DrainMS, b.DrainMS)
	scaled.number("replicas", int64(a.Replicas), int64(b.Replicas))
	beside.beside(a, b)

	all := slices.Concat(replaced, rerouted, scaled, beside)
	switch {
	case len(replaced) > 0:
		return Replaced, all
	case len(rerouted) > 0:
		return Rerouted, all
	case len(scaled) > 0:
		return Scaled, all
	case len(beside) > 0:
		return Adjusted, all
	default:
		return Unchanged, nil
	}
}
