package rollout_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestDecideOnAnything gives Decide states and observations that need not follow
// from each other: restored from a backup, written by another version, or the
// outside did what it should not. Safety holds all the same.
func TestDecideOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyState(t)
		for range 10 { // each next state meets another outside
			s = clone(decideAndCheck(t, midnight, s, anyObservation(t, s)).Next)
		}
	})
}

// decideAndCheck decides and checks everything that holds for each decision alone.
func decideAndCheck(t *rapid.T, now time.Time, s rollout.State, o rollout.Observation) rollout.Decision {
	stored, seen := clone(s), clone(o)
	d := rollout.Decide(now, s, o)
	if !reflect.DeepEqual(clone(s), stored) || !reflect.DeepEqual(clone(o), seen) {
		t.Fatalf("its input was modified: %s", cmp.Diff(stored, clone(s))+cmp.Diff(seen, clone(o)))
	}
	if again := rollout.Decide(now, s, o); !reflect.DeepEqual(d, again) {
		t.Fatalf("deciding twice differs: %s", cmp.Diff(d, again))
	}
	if a, b := plain(d), plain(rollout.Decide(now, stored, seen)); !slices.Equal(a, b) {
		t.Fatalf("deciding on the state as it was stored differs: %s", cmp.Diff(a, b))
	}
	if same := bytes.Equal(marshal(s), marshal(d.Next)); same != (len(d.Events) == 0) {
		t.Fatalf("%d events for a change that reads %s", len(d.Events), cmp.Diff(stored, clone(d.Next)))
	}
	if !d.Wake.IsZero() && !d.Wake.After(now) {
		t.Fatalf("wakes at %s, which is over", d.Wake)
	}
	checkRoutes(t, d, o)
	checkActions(t, d, o)
	checkAdmission(t, s, d, o)
	checkStep(t, s, o, d)
	checkShares(t, d)
	checkAlone(t, s, d)
	return d
}

// plain is a decision as JSON: what the store and the record get of it.
func plain(d rollout.Decision) []string {
	out := []string{string(marshal(d.Next)), string(marshal(d.Events)), string(marshal(d.Wake)), string(marshal(d.Waiting))}
	for _, a := range d.Do {
		out = append(out, string(marshal(a)))
	}
	return out
}

// checkRoutes is the health gate: traffic is for what is ready, or was when it was
// last looked at and still runs.
func checkRoutes(t *rapid.T, d rollout.Decision, o rollout.Observation) {
	orders := map[string]rollout.Order{}
	for _, in := range d.Next.Instances {
		if _, twice := orders[in.ID]; twice {
			t.Fatalf("two instances are called %s", in.ID)
		}
		orders[in.ID] = in
	}
	for _, s := range d.Next.Table.Services {
		for _, b := range s.Backends {
			order, ordered := orders[b.ID]
			at := slices.IndexFunc(o.Instances, func(in rollout.Observed) bool { return in.ID == b.ID })
			switch {
			case !ordered || order.Leaving:
				t.Fatalf("%s is routed and on its way out", b.ID)
			case order.Component != strings.TrimSuffix(s.Name, "@preview"):
				t.Fatalf("%s is routed as %s", b.ID, s.Name)
			case at < 0:
				t.Fatalf("%s is routed and does not exist", b.ID)
			case b.Address != o.Instances[at].Address:
				t.Fatalf("%s is routed at %s instead of %s", b.ID, b.Address, o.Instances[at].Address)
			}
			if phase := o.Instances[at].Phase; phase != rollout.Ready && !(phase == rollout.Unknown && order.Served) {
				t.Fatalf("%s is routed and %s", b.ID, phase)
			}
		}
	}
}

// checkAdmission is that nothing of a release is started, and no share of the traffic
// given to it, that is not known to be admitted at this moment.
func checkAdmission(t *rapid.T, s rollout.State, d rollout.Decision, o rollout.Observation) {
	r := d.Next.Rollout
	a := o.Admission
	if r == nil || a == nil || a.Admitted && a.Error == "" && a.Release == r.To.Release || r.Kind == rollout.KindDown {
		return
	}
	forward := r.Step == rollout.Laying || r.Step == rollout.Shifting || r.Step == rollout.Switching
	for _, do := range d.Do {
		start, ok := do.(rollout.StartInstance)
		if ok && forward && start.Instance.Release == r.To.Release && (r.From == nil || r.From.Release != r.To.Release) {
			t.Fatalf("%s is started, and its release is not admitted", start.Instance.ID)
		}
	}
	was := s.Rollout
	if was != nil && was.Number == r.Number && was.Step != r.Step && (r.Step == rollout.Shifting || r.Step == rollout.Switching || r.Step == rollout.Draining) {
		t.Fatalf("it goes on from %s to %s, and its release is not admitted", was.Step, r.Step)
	}
}

// checkActions is draining's first half: nothing is ended that the router may
// still send requests to. And nothing is started that leaves.
func checkActions(t *rapid.T, d rollout.Decision, o rollout.Observation) {
	routed, leaving := map[string]bool{}, map[string]bool{}
	for _, s := range d.Next.Table.Services {
		for _, b := range s.Backends {
			routed[b.ID] = true
		}
	}
	for _, in := range d.Next.Instances {
		leaving[in.ID] = in.Leaving
	}
	ending := func(id string) {
		if routed[id] {
			t.Fatalf("%s is ended while it is routed", id)
		}
		if o.Router.Generation != d.Next.Table.Generation {
			t.Fatalf("%s is ended before the router, at table %d, acknowledged table %d", id, o.Router.Generation, d.Next.Table.Generation)
		}
	}
	for i, a := range d.Do {
		switch a := a.(type) {
		case rollout.ApplyTable:
			if i > 0 {
				t.Fatalf("the table comes after %s", d.Do[0])
			}
			if !reflect.DeepEqual(a.Table, d.Next.Table) {
				t.Fatalf("a table is applied that is not remembered: %s", cmp.Diff(d.Next.Table, a.Table))
			}
		case rollout.StartInstance:
			if gone, ordered := leaving[a.Instance.ID]; gone || !ordered {
				t.Fatalf("%s is started and on its way out", a.Instance.ID)
			}
			if slices.ContainsFunc(o.Instances, func(in rollout.Observed) bool { return in.ID == a.Instance.ID }) {
				t.Fatalf("%s is started and exists", a.Instance.ID)
			}
		case rollout.StopInstance:
			ending(a.ID)
		case rollout.RemoveInstance:
			ending(a.ID)
		}
	}
}

// checkShares is the exactness of weights: whatever the numbers of instances, the new
// get the stage's percentage.
func checkShares(t *rapid.T, d rollout.Decision) {
	r := d.Next.Rollout
	if r == nil || r.Step != rollout.Shifting {
		return
	}
	for _, s := range d.Next.Table.Services {
		newer, older := 0, 0
		for _, b := range s.Backends {
			if b.Release == rollout.Short(r.To.Release) {
				newer += b.Weight
			} else {
				older += b.Weight
			}
		}
		mixed := newer > 0 && older > 0 && !rolls(r, s.Name)
		if mixed && newer*(100-r.Share) != older*r.Share {
			t.Fatalf("%s: weights %d of the new and %d of the old are not %d %%", s.Name, newer, older, r.Share)
		}
		if r.Share == 0 && newer > 0 && !strings.HasSuffix(s.Name, "@preview") && holds(r.From, s.Name) && mixed {
			t.Fatalf("%s: the new ones get requests in a stage without weight", s.Name)
		}
	}
}

func rolls(r *rollout.Rollout, name string) bool { return r.To.Strategy.Kind == rollout.Rolling }

func holds(t *rollout.Target, name string) bool {
	return t != nil && slices.ContainsFunc(t.Components, func(c rollout.Component) bool { return c.Name == name })
}

// checkAlone is exclusiveness: nothing is ordered while something else holds what it
// needs, and every holder of a singleton has a greater token than the one before.
func checkAlone(t *rapid.T, s rollout.State, d rollout.Decision) {
	before := map[string]bool{}
	for _, o := range s.Instances {
		before[o.ID] = true
	}
	for i, o := range d.Next.Instances {
		if before[o.ID] || o.Leaving {
			continue
		}
		if o.Fence != 0 && o.Fence <= s.Fences[o.Component] {
			t.Fatalf("%s has the token %d, one before it had %d", o.ID, o.Fence, s.Fences[o.Component])
		}
		for j, other := range d.Next.Instances {
			if i != j && slices.ContainsFunc(o.Volumes, func(v string) bool { return slices.Contains(other.Volumes, v) }) {
				t.Fatalf("%s is ordered while %s holds its volume", o.ID, other.ID)
			}
			if i != j && o.Fence != 0 && other.Component == o.Component {
				t.Fatalf("%s is ordered while %s is not gone", o.ID, other.ID)
			}
		}
	}
}

// edges are the steps that may follow each other; "" is the end.
var edges = map[rollout.Step][]rollout.Step{
	rollout.Laying:    {rollout.Shifting, rollout.Switching, rollout.Reverting, ""},
	rollout.Shifting:  {rollout.Shifting, rollout.Laying, rollout.Switching, rollout.Reverting, ""},
	rollout.Switching: {rollout.Draining, rollout.Laying, rollout.Shifting, rollout.Reverting, ""},
	rollout.Draining:  {rollout.Baking, rollout.Retiring, rollout.Reverting, ""},
	rollout.Baking:    {rollout.Retiring, rollout.Reverting, ""},
	rollout.Retiring:  {""},
	rollout.Reverting: {""},
}

// checkStep is the order of the steps, the acknowledged switch, and that a rollout
// ends once the router serves what the end says.
func checkStep(t *rapid.T, s rollout.State, o rollout.Observation, d rollout.Decision) {
	if s.Rollout == nil {
		if d.Next.Rollout != nil && len(s.Queue) == 0 {
			t.Fatal("a rollout began by itself")
		}
		return
	}
	from, to := s.Rollout.Step, rollout.Step("")
	if d.Next.Rollout != nil && d.Next.Rollout.Number == s.Rollout.Number {
		to = d.Next.Rollout.Step
	}
	acknowledged := o.Router.Generation == s.Table.Generation
	if from != to && !slices.Contains(edges[from], to) {
		t.Fatalf("%q follows %q", to, from)
	}
	if from == rollout.Switching && to == rollout.Draining && !acknowledged {
		t.Fatal("it is live and the router has not acknowledged it")
	}
	if from != rollout.Retiring && to == "" {
		if d.Next.LastResult.Outcome != rollout.PutBack || d.Next.LastResult.Failure == nil {
			t.Fatalf("%s ended %s", from, d.Next.LastResult.Outcome)
		}
		if !acknowledged || d.Next.Rollout == nil && !slices.Equal(paths(d.Next.Table), paths(s.Table)) {
			t.Fatalf("it was put back, the routes were not: acknowledged %v, %s, then %s", acknowledged, s.Table, d.Next.Table)
		}
	}
}

// paths is a table without its backends.
func paths(t rollout.Table) []string {
	out := []string{t.Listen}
	for _, s := range t.Services {
		out = append(out, s.Name+" "+s.Host+s.Path)
	}
	return out
}
