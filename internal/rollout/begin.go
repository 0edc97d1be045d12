package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// The kinds of a rollout.
const (
	KindDeploy   = "deploy"
	KindRollback = "rollback"
	KindDown     = "down" // to nothing: the target has no components
)

// Request is what somebody asks of an environment.
type Request struct {
	Kind       string     `json:"kind"` // KindDeploy, KindRollback or KindDown
	To         Target     `json:"to"`
	Actor      string     `json:"actor"`
	Reason     string     `json:"reason,omitempty"`
	Queue      bool       `json:"queue,omitempty"`      // wait for the rollout in flight, whatever the environment says
	Supersede  bool       `json:"supersede,omitempty"`  // end the rollout in flight
	Force      bool       `json:"force,omitempty"`      // though a data schema would not be readable
	BreakGlass bool       `json:"breakGlass,omitempty"` // in spite of the policy, if enough approvers say so
	Admission  *Admission `json:"-"`                    // that it is admitted; nil: nobody judges here
	Hold       bool       `json:"-"`                    // wait though nothing is in flight: nothing is deployed now
}

// Begin puts a rollout in flight. While one is, the request waits for it, ends it
// or is refused with a fault of kind Conflict, as the request and the environment
// say; never are there two (I7). A target that cannot be reached is a fault of kind
// Invalid or Refused.
func Begin(now time.Time, s State, q Request) (State, []Event, error) {
	if err := check(s, q); err != nil {
		return s, nil, err
	}
	d := &decider{now: now, s: s.clone()}
	switch {
	case s.Rollout == nil && !q.Hold:
		d.begin(q)
	case s.Rollout != nil && q.Supersede && !q.Hold:
		d.supersede(q)
	case q.Hold || q.Queue || !slices.Contains([]string{"", QueueRefuse}, q.To.Strategy.Queue):
		d.enqueue(q)
	default:
		return s, nil, inFlight(s)
	}
	return d.s, d.events, nil
}

func inFlight(s State) error {
	r := s.Rollout
	return fault.New(fault.Conflict, "rollout %d (release %d) is in flight since %s, step %s",
		r.Number, r.To.Number, r.StartedAt.UTC().Format(time.RFC3339), r.Step).
		At(s.App+"/"+s.Env).Mend("wait for it (ashlar status %s --watch), queue behind it (--queue) or end it (--supersede)", s.Env)
}

// begin puts the rollout of a request in flight; none is.
func (d *decider) begin(q Request) {
	d.s.Rollouts++
	d.s.Platform = q.To.Platform
	d.s.Rollout = &Rollout{
		Number: d.s.Rollouts, Kind: q.Kind, From: d.s.Current, To: q.To, Step: Laying, StepAt: d.now,
		Proven: q.Kind == KindRollback && slices.Contains(d.s.KnownGood, q.To.Release),
		Actor:  q.Actor, Reason: q.Reason, StartedAt: d.now, ProgressAt: d.now,
		Data: d.s.Data, Least: d.s.Least,
	}
	data := map[string]string{"kind": q.Kind, "to": strconv.Itoa(q.To.Number)}
	why := q.Reason
	if d.s.Current != nil {
		data["from"] = strconv.Itoa(d.s.Current.Number)
	}
	if why == "" {
		why = fmt.Sprintf("%s of release %d", q.Kind, q.To.Number)
	}
	if q.Force {
		data["forced"] = "yes"
	}
	if w := d.s.Warm; w != nil { // taken, or let go
		d.s.Warm = nil
		data["warm"] = strconv.Itoa(w.Target.Number)
	}
	d.event(Event{Kind: "rollout.begun", Release: q.To.Release, Reason: why, Data: data})
	if a := q.Admission; a != nil && a.Policy != "" {
		d.s.Rollout.Policy = a.Policy
		said := "every rule of the policy holds"
		if a.BreakGlass != "" {
			d.s.Rollout.To.BreakGlass = a.BreakGlass + ": " + q.Reason
			said = "the glass was broken by " + d.s.Rollout.To.BreakGlass
		}
		d.event(a.event("admission.admitted", said))
	}
}

// enqueue lets a request wait. Where only the newest is wanted, it takes the place
// of those that wait.
func (d *decider) enqueue(q Request) {
	if q.To.Strategy.Queue == QueueCoalesce {
		d.dropQueue(fmt.Sprintf("a newer one waits: release %d", q.To.Number))
	}
	d.queueAt(len(d.s.Queue), q)
}

func (d *decider) queueAt(at int, q Request) {
	d.s.Queue = slices.Insert(slices.Clone(d.s.Queue), at, Queued{q, d.now})
	if d.s.Platform == "" {
		d.s.Platform = q.To.Platform // the very first: somebody has to look when its time has come
	}
	why := q.Reason
	if why == "" {
		why = fmt.Sprintf("%s of release %d", q.Kind, q.To.Number)
	}
	var data map[string]string
	if r := d.s.Rollout; r != nil {
		data = map[string]string{"behind": strconv.Itoa(r.Number)}
	}
	d.event(Event{Kind: "rollout.queued", Release: q.To.Release, Reason: why, Data: data})
}

func (d *decider) dropQueue(why string) {
	for _, q := range d.s.Queue {
		d.event(Event{Kind: "rollout.dropped", Release: q.To.Release, Reason: why})
	}
	d.s.Queue = nil
}

// supersede ends the rollout in flight for a newer one, which takes its place where
// nothing was touched yet, and begins when the other has ended otherwise: put back
// before the switch, finished without its bake after it.
func (d *decider) supersede(q Request) {
	r := d.s.Rollout
	why := fmt.Sprintf("superseded by the %s of release %d", q.Kind, q.To.Number)
	d.dropQueue(why)
	if r.Step == Laying && d.untouched(r) {
		d.s.LastResult = &Result{Number: r.Number, Kind: r.Kind, Outcome: Superseded, Release: r.To.Release, StartedAt: r.StartedAt, EndedAt: d.now}
		d.event(Event{Kind: "rollout." + string(Superseded), Release: r.To.Release, Reason: why})
		d.s.Rollout = nil
		d.begin(q)
		return
	}
	switch r.Step {
	case Laying, Shifting, Switching:
		d.revert(Failure{What: why, Blameless: true})
	case Draining, Baking:
		d.hurry(r, why)
	}
	d.queueAt(0, q)
}

// hurry cuts a bake short.
func (d *decider) hurry(r *Rollout, why string) {
	if r.Hurried != "" {
		return
	}
	r.Hurried, r.Paused = why, nil
	d.event(Event{Kind: "rollout.hurried", Release: r.To.Release, Reason: why})
}

// untouched says whether a rollout that lays has done nothing but start instances
// beside the old ones.
func (d *decider) untouched(r *Rollout) bool {
	if len(r.Hooks) > 0 || len(r.Rolls) > 0 {
		return false
	}
	for _, wave := range d.turns(r) {
		for _, name := range wave {
			if how(r, name) == replaced {
				return false
			}
		}
	}
	return true
}

// dequeue begins the first rollout that waits, once none is in flight. One that is
// no longer possible is dropped with the reason; the next has its turn in the next decision,
// as what is observed speaks of the first.
func (d *decider) dequeue() {
	if d.s.Rollout != nil || len(d.s.Queue) == 0 {
		return
	}
	q := d.s.Queue[0].Request
	if f := d.o.Frozen; f != nil && q.Kind == KindDeploy && !q.Force {
		d.wakeAt(f.Until)
		d.wait(Cause{What: "the freeze to end: " + f.Why, Since: d.s.Queue[0].At, Till: f.Until, Unblock: "the end of the freeze", Command: "ashlar deploy " + d.s.Env + " --force --reason ..."})
		return
	}
	if !d.admit(&q) {
		return
	}
	d.s.Queue = d.s.Queue[1:]
	if len(d.s.Queue) == 0 {
		d.s.Queue = nil
	}
	if a := q.Admission; a != nil && !a.Admitted {
		d.event(a.event("admission.refused", a.Why))
	}
	if c := d.s.Current; q.Kind == KindDown && c != nil {
		q.To = c.Emptied() // what is live by now
	}
	if why := d.hopeless(q); why != "" {
		d.event(Event{Kind: "rollout.dropped", Release: q.To.Release, Reason: why})
		return
	}
	d.begin(q)
}

// hopeless says why a request that waited is no longer possible; empty: it is.
func (d *decider) hopeless(q Request) string {
	if q.Kind == KindDown {
		if d.s.Current == nil || len(d.s.Current.Components) == 0 {
			return "nothing is running"
		}
		return ""
	}
	if _, bad := d.s.Quarantine[q.To.Release]; bad {
		return "it failed meanwhile and is in quarantine"
	}
	if d.o.Failed != "" && q.Kind == KindDeploy {
		return "it failed meanwhile in " + d.o.Failed + " and is in quarantine"
	}
	if a := q.Admission; a != nil && !a.Admitted {
		return "the policy does not admit it: " + a.Why
	}
	if err := check(d.s, q); err != nil {
		return fault.Of(err).What
	}
	return ""
}

// RollbackTo names the release that a rollback without an argument leads to: the
// youngest proven one that is not current and not in quarantine. Empty: there is none.
func (s State) RollbackTo() digest.Digest {
	for _, d := range slices.Backward(s.KnownGood) {
		if _, bad := s.Quarantine[d]; !bad && (s.Current == nil || s.Current.Release != d) {
			return d
		}
	}
	return ""
}
