package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Timings that are the same for every rollout.
const (
	startAttempts  = 3                      // starts that a platform may refuse before the instance counts as failed
	startRetry     = 250 * time.Millisecond // after the first refused start; grows linearly
	switchPatience = 30 * time.Second       // for the router's acknowledgement of a new table
	revertPatience = time.Minute            // at least, for the old instances to be able to take the traffic back
	stopPatience   = 10 * time.Second       // beyond the grace, before an instance is removed by force
	drainPoll      = 50 * time.Millisecond  // between looks at the requests under way
	routePoll      = time.Second            // between attempts to hand the router a table
	restartBase    = 200 * time.Millisecond // second restart in a row; doubles
	restartMost    = 30 * time.Second       //
	restartForget  = time.Minute            // an instance that lived this long begins a new row
)

// Decision is what follows from a state and an observation.
type Decision struct {
	Next    State     // what to remember; equal to the state that was given when Events is empty
	Events  []Event   // what changed, for the record, in the transaction that keeps Next
	Do      []Action  // what to do afterwards, tables before stops
	Wake    time.Time // when to decide again at the latest; zero: only after a change
	Waiting []string  // what it waits for, in words
}

// Event is one change, for the record.
type Event struct {
	Kind     string
	Instance string
	Release  digest.Digest
	Reason   string
	Data     map[string]string
}

// Action is something to be done: one of [StartInstance], [StopInstance],
// [RemoveInstance], [ApplyTable]. Every action may be repeated.
type Action interface{ String() string }

// StartInstance asks the platform for an instance.
type StartInstance struct{ Instance Instance }

// StopInstance asks the platform to end an instance gracefully.
type StopInstance struct{ ID string }

// RemoveInstance asks the platform to take away what is left of an instance.
type RemoveInstance struct{ ID string }

// ApplyTable asks the router to replace its table.
type ApplyTable struct{ Table Table }

func (a StartInstance) String() string  { return "start " + a.Instance.ID }
func (a StopInstance) String() string   { return "stop " + a.ID }
func (a RemoveInstance) String() string { return "remove " + a.ID }
func (a ApplyTable) String() string     { return "route " + a.Table.String() }

// Decide takes one step: what to remember, record and do, given the time, what is
// remembered and what is observed. It is level-triggered: it asks what is so, not
// what happened, so that a crash, a lost reply or a repeated call between any two
// steps costs another look and nothing else.
//
// Within one decision: look at every order, move the rollout on, order what is
// missing, send off what is not wanted, start what was ordered, compute the table,
// stop what has drained.
func Decide(now time.Time, s State, o Observation) Decision {
	d := &decider{now: now, s: s.clone(), o: o, seen: make(map[string]Observed, len(o.Instances))}
	for _, in := range o.Instances {
		d.seen[in.ID] = in
	}
	d.look()
	d.advance()
	d.orderMissing()
	d.sendOff()
	d.start()
	d.route()
	d.takeAway()
	return Decision{Next: d.s, Events: d.events, Do: d.do, Wake: d.wake, Waiting: d.waiting}
}

// decider is the working state of one call of Decide.
type decider struct {
	now  time.Time
	s    State // becomes Decision.Next
	o    Observation
	seen map[string]Observed

	events  []Event
	do      []Action
	wake    time.Time
	waiting []string
}

func (d *decider) event(e Event) { d.events = append(d.events, e) }

func (d *decider) wakeAt(t time.Time) {
	if !t.IsZero() && (d.wake.IsZero() || t.Before(d.wake)) {
		d.wake = t
	}
}

func (d *decider) waitFor(format string, args ...any) {
	d.waiting = append(d.waiting, fmt.Sprintf(format, args...))
}

// phase is the observed phase of an order, or "" when it is not observed.
func (d *decider) phase(id string) Phase { return d.seen[id].Phase }

// acknowledged says that the router serves the table that was last asked for.
func (d *decider) acknowledged() bool { return d.o.Router.Generation == d.s.Table.Generation }

// of lists the orders for a component at a spec that are not on their way out.
func (d *decider) of(component string, spec digest.Digest) []*Order {
	var out []*Order
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; o.Component == component && o.Spec == spec && !o.Leaving {
			out = append(out, o)
		}
	}
	return out
}

func (s State) clone() State {
	s.Instances = slices.Clone(s.Instances)
	s.KnownGood = slices.Clone(s.KnownGood)
	restarts := make(map[string]Restart, len(s.Restarts))
	for k, v := range s.Restarts {
		restarts[k] = v
	}
	s.Restarts = restarts
	if len(restarts) == 0 {
		s.Restarts = nil
	}
	if s.Rollout != nil {
		r := *s.Rollout
		s.Rollout = &r
	}
	return s
}

// find gives the component of that name and spec; nil also for a nil target.
func (t *Target) find(name string, spec digest.Digest) *Component {
	if t == nil {
		return nil
	}
	for i := range t.Components {
		if c := &t.Components[i]; c.Name == name && c.Spec == spec {
			return c
		}
	}
	return nil
}

// String gives a table in one line: generation, then each service with its backends.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d", t.Generation)
	for _, s := range t.Services {
		ids := make([]string, len(s.Backends))
		for i, be := range s.Backends {
			ids[i] = be.ID
		}
		fmt.Fprintf(&b, " %s=[%s]", s.Name, strings.Join(ids, " "))
	}
	return b.String()
}
