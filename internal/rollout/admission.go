package rollout

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Plea is what a policy is asked: may the release go to the environment in this way.
type Plea struct {
	Key
	Release    digest.Digest
	Number     int    // of the release
	Kind       string // KindDeploy or KindRollback
	Actor      string // who asked for it
	BreakGlass string // why it should be admitted in spite of the policy; empty: it should not
}

// Admission is the answer to a Plea, as observed. The zero value says that nothing was
// asked.
type Admission struct {
	Release    digest.Digest     // that it is about
	Policy     digest.Digest     // by which it was judged; empty: there is none, and everything is admitted
	Admitted   bool              //
	Why        string            // with neither Admitted nor Error: in one line
	Details    []string          // likewise: the rules that fail, a few lines, for people
	Data       map[string]string // the verdict, for the record
	Facts      []byte            // what it was judged by, whose digest Data names; kept beside the record
	BreakGlass string            // who let it in in spite of the policy; empty: nobody had to
	Error      string            // it could not be judged, in words: nothing goes forward
}

// event is what the record tells of the verdict.
func (a Admission) event(kind, reason string) Event {
	return Event{Kind: kind, Release: a.Release, Reason: reason, Data: a.Data, Facts: a.Facts}
}

// Plea is what has to be asked before the next decision: about the target of a
// rollout that has not moved the whole of the traffic yet, or about the first that
// waits. Nil: nothing.
func (s State) Plea() *Plea {
	p := Plea{Key: Key{s.App, s.Env}}
	switch r := s.Rollout; {
	case r != nil && r.Kind != KindDown && r.forward():
		p.Release, p.Number, p.Kind, p.Actor = r.To.Release, r.To.Number, r.Kind, r.Actor
		if r.To.BreakGlass != "" {
			p.BreakGlass = r.Reason
		}
	case r == nil && len(s.Queue) > 0 && s.Queue[0].Kind != KindDown:
		return s.Queue[0].plea(p.Key)
	default:
		return nil
	}
	return &p
}

func (q Request) plea(key Key) *Plea {
	p := &Plea{Key: key, Release: q.To.Release, Number: q.To.Number, Kind: q.Kind, Actor: q.Actor}
	if q.BreakGlass {
		p.BreakGlass = q.Reason
	}
	return p
}

// Plea is what has to be asked before the request is begun; nil: nothing.
func (q Request) Plea(key Key) *Plea {
	if q.Kind == KindDown {
		return nil
	}
	return q.plea(key)
}

// forward says whether the rollout has not moved the whole of the traffic yet, so that
// nothing is lost when it is put back.
func (r *Rollout) forward() bool {
	return r.Step == Laying || r.Step == Shifting || r.Step == Switching
}

// admitted says whether the release is known to be admitted at this moment. Where
// nobody judges, everything is.
func (d *decider) admitted(release digest.Digest) bool {
	a := d.o.Admission
	return a == nil || a.Release == release && a.Admitted && a.Error == ""
}

// judge puts a rollout back whose target is no longer admitted, and holds one back of
// which that is not known. It says whether the rollout may go forward. After the switch
// nobody asks any more: what was admitted when it got the traffic keeps it.
func (d *decider) judge(r *Rollout) bool {
	a := d.o.Admission
	if a == nil || r.Kind == KindDown || !r.forward() {
		return true
	}
	switch {
	case a.Release != r.To.Release || a.Error != "":
		d.unjudged(r)
		return false
	case !a.Admitted:
		d.event(a.event("admission.refused", a.Why))
		d.revert(Failure{What: "the policy no longer admits it: " + a.Why, Blameless: true})
		return false
	}
	if a.Policy != r.Policy {
		r.Policy = a.Policy
		d.event(a.event("admission.admitted", "the policy of the environment was replaced"))
	}
	return true
}

// judgeAgain is when a release is asked about again that could not be judged.
const judgeAgain = time.Second

// unjudged waits for a verdict, as long as a rollout may stand still.
func (d *decider) unjudged(r *Rollout) {
	what := "the verdict on it"
	if d.o.Admission.Error != "" {
		what = "the policy to be asked: " + d.o.Admission.Error
	}
	d.wait(Cause{What: what, Since: r.ProgressAt, Unblock: "an answer", Command: "ashlar policy test " + d.s.Env})
	d.wakeAt(d.now.Add(judgeAgain))
	d.late(r, r.ProgressAt)
}

// mayStart says whether an instance may be started now: one that a rollout brings only
// if its release is admitted at this moment.
func (d *decider) mayStart(o *Order) bool {
	r := d.s.Rollout
	if r == nil || !r.forward() || o.Release != r.To.Release || r.From != nil && r.From.Release == o.Release {
		return true
	}
	return d.admitted(o.Release)
}

// admit says whether the first that waits may begin now as far as the policy goes; one
// that is refused has gone from the queue.
func (d *decider) admit(q *Request) bool {
	a := d.o.Admission
	if a == nil || q.Kind == KindDown {
		return true
	}
	if a.Release != q.To.Release || a.Error != "" {
		d.wakeAt(d.now.Add(judgeAgain))
		if a.Release != q.To.Release {
			d.wakeAt(d.now.Add(time.Millisecond)) // the one before has just ended
		}
		d.wait(Cause{What: fmt.Sprintf("the verdict on release %d", q.To.Number), Since: d.s.Queue[0].At, Unblock: "an answer", Command: "ashlar policy test " + d.s.Env})
		return false
	}
	q.Admission = a
	return true
}

// Standing is what the policy has against the release that is live: it would not let it
// come back. It goes on all the same.
type Standing struct {
	Release digest.Digest `json:"release"`
	Policy  digest.Digest `json:"policy"`
	Why     string        `json:"why"`
	Since   time.Time     `json:"since"`
}

// Stand remembers what the policy says of the release that is live, where that changes.
func (s State) Stand(now time.Time, a Admission) (State, []Event) {
	was := s.Standing
	switch {
	case s.Current == nil || s.Current.Release != a.Release || a.Error != "":
		return s, nil
	case a.Admitted && was == nil, !a.Admitted && was != nil && was.Release == a.Release && was.Policy == a.Policy:
		return s, nil
	}
	s = s.clone()
	if a.Admitted {
		s.Standing = nil
		return s, []Event{a.event("release.allowed", "the policy has nothing against it any more")}
	}
	s.Standing = &Standing{Release: a.Release, Policy: a.Policy, Why: a.Why, Since: now.UTC()}
	return s, []Event{a.event("release.disallowed", a.Why+"; it goes on")}
}
