package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// advance moves the rollout in flight on, as far as the observation allows: one
// step at most, so that each is recorded before the next is begun.
func (d *decider) advance() {
	r := d.s.Rollout
	if r == nil {
		return
	}
	switch r.Step {
	case Laying:
		d.advanceLaying(r)
	case Switching:
		d.advanceSwitching(r)
	case Draining:
		d.advanceDraining(r)
	case Retiring:
		d.advanceRetiring(r)
	case Reverting:
		d.advanceReverting(r)
	}
}

// advanceLaying goes on when every instance that the rollout brings is ready.
func (d *decider) advanceLaying(r *Rollout) {
	if r.From == nil && d.refused() {
		d.revert(Failure{What: "the router refused the routes: " + d.o.Refused.What})
		return
	}
	if d.allReady(r) {
		d.enter(r, Switching, "every new instance is ready")
	}
}

// allReady says whether every instance that the rollout brings is ready.
func (d *decider) allReady(r *Rollout) bool {
	all := true
	for _, c := range r.To.Components {
		if from := r.From.find(c.Name, c.Spec); from != nil && c.Replicas <= from.Replicas {
			continue // carried over as it is
		}
		if ready := d.ready(c); ready < c.Replicas {
			all = false
			d.waitFor("%s: %d of %d new instances ready", c.Name, ready, c.Replicas)
		}
	}
	return all
}

// advanceSwitching goes on when the router acknowledges the new table: whichever
// it was asked for in this step leads to the new instances. While it has not, a new
// instance that is no longer ready takes the rollout a step back.
func (d *decider) advanceSwitching(r *Rollout) {
	switch {
	case d.refused():
		d.revert(Failure{What: "the router refused the routes: " + d.o.Refused.What})
	case d.acknowledged():
		r.SwitchAt = d.now
		r.DrainTill = d.now.Add(longestDrain(r.From))
		d.s.Current = &r.To
		d.event(Event{Kind: "release.live", Release: r.To.Release, Reason: "the router serves the new instances"})
		d.enter(r, Draining, "the router acknowledged the new routes")
	case !d.now.Before(r.StepAt.Add(switchPatience)):
		d.revert(Failure{What: "the router did not acknowledge the new routes within " + switchPatience.String()})
	case !d.allReady(r):
		d.enter(r, Laying, "a new instance is no longer ready")
	default:
		d.wakeAt(r.StepAt.Add(switchPatience))
		d.waitFor("the router to acknowledge the new routes")
	}
}

// advanceDraining goes on when the old instances have no request left, or their
// time is over. Until then the old can still take the traffic back.
func (d *decider) advanceDraining(r *Rollout) {
	left := 0
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; r.To.find(o.Component, o.Spec) == nil {
			left += d.o.Router.InFlight[o.ID]
		}
	}
	if left > 0 && d.now.Before(r.DrainTill) {
		d.waitFor("%d requests of the old instances to end, until %s at the latest", left, r.DrainTill.UTC().Format(time.TimeOnly))
		d.wakeAt(r.DrainTill)
		d.wakeAt(d.now.Add(drainPoll))
		return
	}
	d.s.KnownGood = appendOnce(d.s.KnownGood, r.To.Release)
	if r.Kind == KindRollback && r.From != nil && r.From.Release != r.To.Release {
		// Somebody went back from it, so no rollback leads to it by itself.
		d.s.KnownGood = slices.DeleteFunc(d.s.KnownGood, func(g digest.Digest) bool { return g == r.From.Release })
	}
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; !o.Leaving && r.To.find(o.Component, o.Spec) == nil {
			d.leave(o, fmt.Sprintf("replaced by release %d", r.To.Number))
			o.DrainTill = d.now // it has drained
		}
	}
	why := "the old instances have no request left"
	if left > 0 {
		why = fmt.Sprintf("the drain time is over with %d requests left", left)
	}
	d.enter(r, Retiring, why)
}

// advanceRetiring ends the rollout when nothing of the old is left.
func (d *decider) advanceRetiring(r *Rollout) {
	if n := d.foreign(&r.To); n > 0 {
		d.waitFor("%d old instances to end", n)
		return
	}
	d.end(r, Live)
}

// advanceReverting ends the rollout when nothing of the new is left.
func (d *decider) advanceReverting(r *Rollout) {
	if n := d.foreign(r.From); n > 0 {
		d.waitFor("%d new instances to end", n)
		return
	}
	if !d.unrouted(r) {
		d.waitFor("the router to acknowledge the previous routes")
		return
	}
	d.end(r, PutBack)
}

// revert turns the rollout round. The pointer goes back at once; the routes
// follow in the same decision, and the new instances leave once they are unrouted.
func (d *decider) revert(f Failure) {
	r := d.s.Rollout
	if r == nil || r.Step == Reverting {
		return
	}
	r.Failure = &f
	d.s.Current = r.From
	d.enter(r, Reverting, failureWords(f))
}

func (d *decider) enter(r *Rollout, step Step, why string) {
	r.Step, r.StepAt = step, d.now
	d.event(Event{Kind: "rollout." + string(step), Release: r.To.Release, Reason: why})
}

func (d *decider) end(r *Rollout, outcome Outcome) {
	d.s.LastResult = &Result{
		Number: r.Number, Kind: r.Kind, Outcome: outcome, Release: r.To.Release,
		StartedAt: r.StartedAt, SwitchAt: r.SwitchAt, EndedAt: d.now, Failure: r.Failure,
	}
	why := "the new release serves and nothing of the old is left"
	if outcome == PutBack {
		why = "put back: " + failureWords(*r.Failure)
	}
	d.event(Event{Kind: "rollout." + string(outcome), Release: r.To.Release, Reason: why})
	d.s.Rollout = nil
}

// refused says that the router will never take the table last asked for.
func (d *decider) refused() bool {
	return d.o.Refused != nil && d.o.Refused.Generation == d.s.Table.Generation
}

// ready counts the instances of a component that are ready.
func (d *decider) ready(c Component) int {
	n := 0
	for _, o := range d.of(c.Name, c.Spec) {
		if d.phase(o.ID) == Ready {
			n++
		}
	}
	return n
}

// foreign counts the orders that do not belong to the target.
func (d *decider) foreign(t *Target) int {
	n := 0
	for _, o := range d.s.Instances {
		if t.find(o.Component, o.Spec) == nil {
			n++
		}
	}
	return n
}

func longestDrain(t *Target) time.Duration {
	longest := time.Duration(0)
	if t != nil {
		for _, c := range t.Components {
			longest = max(longest, c.Drain)
		}
	}
	return longest
}

func failureWords(f Failure) string {
	if f.Instance == "" {
		return f.What
	}
	return f.Instance + " " + f.What
}

func appendOnce(list []digest.Digest, d digest.Digest) []digest.Digest {
	list = slices.DeleteFunc(list, func(have digest.Digest) bool { return have == d })
	return append(list, d)
}
