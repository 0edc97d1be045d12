package rollout

import (
	"fmt"
	"maps"
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
	deadline       = 10 * time.Minute       // without progress, where the strategy does not say
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
	Why     []Cause   // the same, with everything that is known of it
}

// Event is one change, for the record.
type Event struct {
	Kind     string
	Rollout  int // that it belongs to; 0: none
	Instance string
	Release  digest.Digest
	Reason   string
	Data     map[string]string
	Facts    []byte // of Admission
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

// Cause is one thing that is waited for.
type Cause struct {
	What    string    `json:"what"`              // in words
	Since   time.Time `json:"since"`             //
	Till    time.Time `json:"till,omitzero"`     // when the waiting ends by itself, one way or the other; zero: never
	Unblock string    `json:"unblock,omitempty"` // what would end it
	Command string    `json:"command,omitempty"` // that a person can give
}

// Decide takes one step: what to remember, record and do, given the time, what is
// remembered and what is observed. It is level-triggered: it asks what is so, not
// what happened, so that a crash, a lost reply or a repeated call between any two
// steps costs another look and nothing else.
//
// Within one decision: look at every order, move the rollout on, order what is
// missing, send off what is not wanted, start what was ordered, compute the table,
// stop what has drained.
func Decide(now time.Time, s State, o Observation) Decision {
	d := &decider{now: now, s: s.clone(), o: o}
	d.index()
	d.look()
	d.advance()
	d.dequeue()
	d.orderMissing()
	d.schedule()
	d.sendOff()
	d.start()
	d.route()
	d.takeAway()
	return Decision{Next: d.s, Events: d.events, Do: d.do, Wake: d.wake, Waiting: waiting(d.why), Why: d.why}
}

// decider is the working state of one call of Decide.
type decider struct {
	now time.Time
	s   State // becomes Decision.Next
	o   Observation

	seen     map[string]*Observed
	ids      map[string]bool // of the orders, once asked for
	groups   map[group][]int // indexes into s.Instances, jobs of hooks left out
	waves    [][]string      // of the rollout in flight, once asked for
	routed   map[string]bool // instances in the table routedIn
	routedIn int64

	events []Event
	do     []Action
	wake   time.Time
	why    []Cause
}

// group is what instances have in common that are interchangeable.
type group struct {
	component string
	spec      digest.Digest
}

// index makes what would otherwise be looked for again and again.
func (d *decider) index() {
	d.seen = make(map[string]*Observed, len(d.o.Instances))
	for i := range d.o.Instances {
		d.seen[d.o.Instances[i].ID] = &d.o.Instances[i]
	}
	d.groups = map[group][]int{}
	for i := range d.s.Instances {
		d.grouped(i)
	}
}

func (d *decider) grouped(i int) {
	if o := &d.s.Instances[i]; o.Hook == "" {
		g := group{o.Component, o.Spec}
		d.groups[g] = append(d.groups[g], i)
	}
}

// add takes an order into the state.
func (d *decider) add(o Order) {
	d.s.Instances = append(d.s.Instances, o)
	d.grouped(len(d.s.Instances) - 1)
}

func (d *decider) event(e Event) {
	if d.s.Rollout != nil {
		e.Rollout = d.s.Rollout.Number
	}
	d.events = append(d.events, e)
}

func (d *decider) wakeAt(t time.Time) {
	if !t.IsZero() && (d.wake.IsZero() || t.Before(d.wake)) {
		d.wake = t
	}
}

// wait says what is waited for.
func (d *decider) wait(c Cause) { d.why = append(d.why, c) }

func waiting(why []Cause) []string {
	var out []string
	for _, c := range why {
		out = append(out, c.What)
	}
	return out
}

// phase is the observed phase of an order, or "" when it is not observed.
func (d *decider) phase(id string) Phase {
	if in := d.seen[id]; in != nil {
		return in.Phase
	}
	return ""
}

// acknowledged says that the router serves the table that was last asked for.
func (d *decider) acknowledged() bool { return d.o.Router.Generation == d.s.Table.Generation }

// of lists the orders for a component at a spec that are not on their way out.
func (d *decider) of(component string, spec digest.Digest) []*Order {
	in := d.groups[group{component, spec}]
	out := make([]*Order, 0, len(in))
	for _, i := range in {
		if o := &d.s.Instances[i]; !o.Leaving {
			out = append(out, o)
		}
	}
	return out
}

// inTable says whether the table last asked for leads to an instance.
func (d *decider) inTable(id string) bool {
	if d.routed == nil || d.routedIn != d.s.Table.Generation {
		d.routed, d.routedIn = map[string]bool{}, d.s.Table.Generation
		for _, s := range d.s.Table.Services {
			for _, b := range s.Backends {
				d.routed[b.ID] = true
			}
		}
	}
	return d.routed[id]
}

// clone copies what a decision changes in place. Maps are never changed in place:
// see with and without.
func (s State) clone() State {
	s.Instances = slices.Clone(s.Instances)
	s.KnownGood = slices.Clone(s.KnownGood)
	if s.Rollout != nil {
		r := *s.Rollout
		s.Rollout = &r
	}
	return s
}

// with gives the map with one value set, and leaves the given one alone.
func with[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	c[k] = v
	return c
}

// without gives the map without a key, nil when nothing is left, and leaves the
// given one alone.
func without[K comparable, V any](m map[K]V, k K) map[K]V {
	c := maps.Clone(m)
	delete(c, k)
	if len(c) == 0 {
		return nil
	}
	return c
}

// String gives a table in one line: generation, then each service with its
// host, its backends, their weights where they differ, and who goes elsewhere.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d", t.Generation)
	for _, s := range t.Services {
		even := !slices.ContainsFunc(s.Backends, func(b Backend) bool { return b.Weight != s.Backends[0].Weight })
		words := make([]string, len(s.Backends))
		for i, be := range s.Backends {
			words[i] = be.ID
			if !even {
				words[i] += fmt.Sprintf("*%d", be.Weight)
			}
		}
		b.WriteString(" " + s.Name)
		if s.Host != "" {
			b.WriteString("(" + s.Host + ")")
		}
		fmt.Fprintf(&b, "=[%s]", strings.Join(words, " "))
		if m := s.Match; m != nil {
			fmt.Fprintf(&b, " match %s%s=%s", m.Header, m.Cookie, m.Value)
		}
		if s.Sticky != "" {
			b.WriteString(" sticky " + s.Sticky)
		}
	}
	return b.String()
}
