package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// want is how many instances of a component at a spec there should be.
type want struct {
	Component
	release digest.Digest
}

// wanted lists what should run now. While a rollout lays the new beside the old
// that is both; instances that both have in common are wanted once.
func (d *decider) wanted() []want {
	r := d.s.Rollout
	switch {
	case r == nil:
		return wants(nil, d.s.Current)
	case r.Step == Reverting:
		return wants(nil, r.From)
	case r.Step == Retiring:
		return wants(nil, &r.To)
	default:
		return wants(wants(nil, r.From), &r.To)
	}
}

func wants(list []want, t *Target) []want {
	if t == nil {
		return list
	}
next:
	for _, c := range t.Components {
		for i := range list {
			if list[i].Name == c.Name && list[i].Spec == c.Spec {
				list[i].Replicas = max(list[i].Replicas, c.Replicas)
				continue next
			}
		}
		list = append(list, want{c, t.Release})
	}
	return list
}

// orderMissing orders an instance for each one that is wanted and not there.
func (d *decider) orderMissing() {
	for _, w := range d.wanted() {
		have := len(d.of(w.Name, w.Spec))
		if have >= w.Replicas {
			continue
		}
		if r := d.s.Rollout; r != nil && (r.Step == Switching || r.Step == Draining) && r.To.find(w.Name, w.Spec) == nil {
			continue // the old are about to leave
		}
		if after := d.s.Restarts[w.Name].After; d.now.Before(after) && !d.broughtBy(w) {
			d.wakeAt(after)
			d.waitFor("%s: the pause after %d failures in a row", w.Name, d.s.Restarts[w.Name].Count)
			continue
		}
		for ; have < w.Replicas; have++ {
			d.order(w)
		}
	}
}

// broughtBy says whether a want is the rollout's own, which no past failure of
// other instances of the component delays.
func (d *decider) broughtBy(w want) bool {
	r := d.s.Rollout
	return r != nil && r.To.find(w.Name, w.Spec) != nil && r.From.find(w.Name, w.Spec) == nil
}

func (d *decider) order(w want) {
	o := Order{
		Instance:  Instance{ID: d.newID(w.Name), Component: w.Name, Release: w.release, Spec: w.Spec},
		OrderedAt: d.now, Start: w.Start, Drain: w.Drain, Grace: w.Grace,
	}
	d.s.Instances = append(d.s.Instances, o)
	d.event(Event{Kind: "instance.ordered", Instance: o.ID, Release: o.Release})
}

// newID names an instance. A name is passed over that something has which was
// ordered after the backup that this state was restored from.
func (d *decider) newID(component string) string {
	for {
		d.s.Ordered++
		id := fmt.Sprintf("%s-%s-%s-%d", d.s.App, d.s.Env, component, d.s.Ordered)
		if _, there := d.seen[id]; !there && !slices.ContainsFunc(d.s.Instances, func(o Order) bool { return o.ID == id }) {
			return id
		}
	}
}

// start asks for every order that no observation has shown yet, again if need be.
func (d *decider) start() {
	for _, o := range d.s.Instances {
		if o.Leaving || o.Seen {
			continue
		}
		a := d.o.Attempts[o.ID]
		if retry := a.At.Add(time.Duration(a.Count) * startRetry); a.Count > 0 && d.now.Before(retry) {
			d.wakeAt(retry)
			continue
		}
		d.do = append(d.do, StartInstance{o.Instance})
	}
}

// sendOff lets go what is not wanted: too many of a component, or what a
// reverting rollout brought. The instances of a rollout's old release are let go
// by its Draining step.
func (d *decider) sendOff() {
	r := d.s.Rollout
	if r != nil && r.Step == Reverting && !d.unrouted(r) {
		return
	}
	keep := map[[2]string]int{}
	for _, w := range d.wanted() {
		keep[[2]string{w.Name, w.Spec.String()}] = w.Replicas
	}
	// The youngest of too many go first: they have served the least.
	total := map[[2]string]int{}
	for _, o := range d.s.Instances {
		if !o.Leaving {
			total[[2]string{o.Component, o.Spec.String()}]++
		}
	}
	for i := len(d.s.Instances) - 1; i >= 0; i-- {
		o := &d.s.Instances[i]
		k := [2]string{o.Component, o.Spec.String()}
		if o.Leaving || total[k] <= keep[k] {
			continue
		}
		total[k]--
		d.leave(o, d.leaveWords())
	}
}

func (d *decider) leaveWords() string {
	if r := d.s.Rollout; r != nil && r.Step == Reverting {
		return fmt.Sprintf("release %d was put back", r.To.Number)
	}
	return "no longer wanted"
}

// unrouted says whether the router has taken back the routes to what a reverting
// rollout brought.
func (d *decider) unrouted(r *Rollout) bool {
	return d.acknowledged() && sameRoutes(d.s.Table, d.table(r.From))
}

// leave sets an order on its way out. It is unrouted in the same decision.
func (d *decider) leave(o *Order, why string) {
	o.Leaving, o.Why = true, why
	d.event(Event{Kind: "instance.leaving", Instance: o.ID, Release: o.Release, Reason: why})
}

// takeAway stops what has left the routes and drained, and removes what has ended.
// Nothing is touched before the router acknowledged a table without it.
func (d *decider) takeAway() {
	var kept []Order
	for i := range d.s.Instances {
		o := d.s.Instances[i]
		if o.Leaving && d.gone(&o) {
			d.event(Event{Kind: "instance.removed", Instance: o.ID, Release: o.Release, Reason: o.Why})
			continue
		}
		kept = append(kept, o)
	}
	d.s.Instances = kept
}

// gone moves one leaving order on and says whether nothing of it is left.
func (d *decider) gone(o *Order) bool {
	if !d.acknowledged() || inTable(d.s.Table, o.ID) {
		return false
	}
	in, there := d.seen[o.ID]
	switch {
	case !there && !o.StopAt.IsZero():
		return true
	case !there:
		// A start whose reply was lost may still be under way: take it away once
		// more before forgetting it.
		d.stopNow(o, RemoveInstance{o.ID})
	case in.Phase == Exited:
		d.stopNow(o, RemoveInstance{o.ID})
	case o.StopAt.IsZero() && d.draining(o):
		d.wakeAt(o.DrainTill)
		d.wakeAt(d.now.Add(drainPoll))
	case !o.StopAt.IsZero() && !d.now.Before(o.StopAt.Add(o.Grace+stopPatience)):
		d.do = append(d.do, RemoveInstance{o.ID})
	case !o.StopAt.IsZero() && in.Phase == Stopping:
		d.wakeAt(o.StopAt.Add(o.Grace + stopPatience)) // it was told; telling it again would only keep the engine busy
	default:
		d.stopNow(o, StopInstance{o.ID})
		d.wakeAt(o.StopAt.Add(o.Grace + stopPatience))
	}
	return false
}

// draining says whether an unrouted order still has requests and time for them.
// Its time begins when the router was first seen without it, not when it was decided.
func (d *decider) draining(o *Order) bool {
	n := d.o.Router.InFlight[o.ID]
	if n == 0 {
		return false
	}
	if o.DrainTill.IsZero() {
		o.DrainTill = d.now.Add(o.Drain)
		d.event(Event{Kind: "instance.draining", Instance: o.ID, Release: o.Release, Reason: fmt.Sprintf("%d requests under way", n)})
	}
	return d.now.Before(o.DrainTill)
}

func (d *decider) stopNow(o *Order, a Action) {
	if o.StopAt.IsZero() {
		o.StopAt = d.now
		d.event(Event{Kind: "instance.stopping", Instance: o.ID, Release: o.Release, Reason: o.Why})
	}
	d.do = append(d.do, a)
}
