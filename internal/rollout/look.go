package rollout

import (
	"fmt"
	"strconv"
	"time"
)

// look brings every order up to date with what is observed: first seen, first
// ready, not ready, ended, lost, late. What failed is on its way out afterwards,
// and a rollout whose new instance failed is reverting.
func (d *decider) look() {
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if o.Leaving {
			continue
		}
		in := d.seen[o.ID]
		there := in != nil
		switch {
		case o.Hook != "":
			d.lookAtJob(o, in)
		case there && in.Phase == Exited:
			d.markSeen(o)
			d.fail(o, Failure{What: exitWords(in.Exit), Exit: in.Exit, Tail: in.Tail})
		case there:
			d.markSeen(o)
			d.lookAtRunning(o, *in)
		case o.Seen:
			d.fail(o, Failure{What: "is gone: the platform no longer has it"})
		default:
			d.lookAtUnborn(o)
		}
	}
	d.adoptOrphans()
}

func (d *decider) markSeen(o *Order) {
	if !o.Seen {
		o.Seen = true
		d.event(Event{Kind: "instance.started", Instance: o.ID, Release: o.Release})
	}
}

func (d *decider) lookAtRunning(o *Order, in Observed) {
	switch in.Phase {
	case Ready:
		if !o.Served {
			o.Served = true
			if d.brought(o) {
				d.s.Rollout.ProgressAt = d.now
			}
			d.event(Event{Kind: "instance.ready", Instance: o.ID, Release: o.Release})
		} else if !o.Unready.IsZero() {
			d.event(Event{Kind: "instance.recovered", Instance: o.ID, Release: o.Release})
		}
		o.Unready = time.Time{}
	case Starting:
		d.deadline(o, in, in.StartedAt.Add(o.Start), "did not become ready within "+o.Start.String())
	case Unready:
		if o.Unready.IsZero() {
			o.Unready = d.now
			d.event(Event{Kind: "instance.unready", Instance: o.ID, Release: o.Release, Reason: in.Probe})
		}
		d.deadline(o, in, o.Unready.Add(o.Start), "was not ready for "+o.Start.String())
	}
}

func (d *decider) deadline(o *Order, in Observed, at time.Time, what string) {
	if d.now.Before(at) {
		d.wakeAt(at)
		return
	}
	d.fail(o, Failure{What: what, Probe: in.Probe, Tail: in.Tail})
}

// lookAtUnborn handles an order that no observation has shown yet: it has failed
// once the platform refused to start it too often.
func (d *decider) lookAtUnborn(o *Order) {
	if a := d.o.Attempts[o.ID]; a.Count >= startAttempts {
		d.fail(o, Failure{What: "could not be started: " + a.Last})
	}
}

// fail sends an order off for a reason. If it is one that the rollout in flight
// brought, the rollout is put back; otherwise it will be replaced, with growing pauses.
func (d *decider) fail(o *Order, f Failure) {
	f.Instance, f.Component = o.ID, o.Component
	d.event(Event{Kind: "instance.failed", Instance: o.ID, Release: o.Release, Reason: f.What, Data: failureData(f)})
	switch {
	case d.brought(o) && !d.s.Rollout.Proven:
		d.revert(f)
	case d.wantedAt(o):
		d.backOff(o)
	}
	d.leave(o, f.What)
}

// brought says whether the rollout in flight answers for the order: its spec is
// new, or the component grows.
func (d *decider) brought(o *Order) bool {
	r := d.s.Rollout
	if r == nil || r.Step == Retiring || r.Step == Reverting {
		return false
	}
	to := r.To.find(o.Component, o.Spec)
	if to == nil {
		return false
	}
	from := r.From.find(o.Component, o.Spec)
	return from == nil || to.Replicas > from.Replicas
}

// wantedAt says whether the order's component is wanted at its spec, so that a
// replacement will be ordered.
func (d *decider) wantedAt(o *Order) bool {
	for _, w := range d.wanted() {
		if w.Name == o.Component && w.Spec == o.Spec {
			return true
		}
	}
	return false
}

func (d *decider) backOff(o *Order) {
	r := d.s.Restarts[o.Component]
	if d.now.Sub(o.OrderedAt) > restartForget {
		r.Count = 0
	}
	r.Count++
	pause := time.Duration(0)
	if r.Count > 1 {
		pause = min(restartBase<<min(r.Count-2, 20), restartMost)
	}
	r.After = d.now.Add(pause)
	d.s.Restarts = with(d.s.Restarts, o.Component, r)
}

// adoptOrphans takes what runs without an order into the orders, on its way out:
// the state was restored from a backup, a start that was given up arrived after
// all, or somebody else made it. The router may still send requests to it.
func (d *decider) adoptOrphans() {
	known := make(map[string]bool, len(d.s.Instances))
	for i := range d.s.Instances {
		known[d.s.Instances[i].ID] = true
	}
	for i := range d.o.Instances {
		in := &d.o.Instances[i]
		if known[in.ID] {
			continue
		}
		o := Order{
			Instance:  Instance{ID: in.ID, Component: in.Component, Release: in.Release, Spec: in.Spec},
			OrderedAt: in.StartedAt, Seen: true, Leaving: true, Why: "runs without an order",
		}
		if d.s.Current != nil { // its release may not be known: it gets as long as the slowest that is
			for _, c := range d.s.Current.Components {
				o.Drain, o.Grace = max(o.Drain, c.Drain), max(o.Grace, c.Grace)
			}
		}
		d.add(o)
		d.event(Event{Kind: "instance.orphan", Instance: o.ID, Release: o.Release, Reason: o.Why})
	}
}

func exitWords(e *Exit) string {
	switch {
	case e == nil:
		return "ended and nobody saw how"
	case e.OOM:
		return "was killed: it used more memory than its limit"
	case e.Signal != "":
		return "was ended by " + e.Signal
	default:
		return fmt.Sprintf("exited with status %d", e.Code)
	}
}

func failureData(f Failure) map[string]string {
	data := map[string]string{}
	if f.Exit != nil {
		data["code"] = strconv.Itoa(f.Exit.Code)
	}
	if f.Probe != "" {
		data["probe"] = f.Probe
	}
	if n := len(f.Tail); n > 0 {
		data["output"] = f.Tail[n-1]
	}
	if len(data) == 0 {
		return nil
	}
	return data
}
