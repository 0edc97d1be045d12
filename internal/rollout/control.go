package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Command is what a person says to the rollout in flight.
type Command struct {
	Verb   string `json:"verb"` // one of the Verbs
	Reason string `json:"reason,omitempty"`
}

// The verbs of a Command. VerbRetry is for one that has ended, and the engine's.
const (
	VerbPause   = "pause"   // nothing goes forward; failures still put it back
	VerbResume  = "resume"  //
	VerbApprove = "approve" // the stage that waits for a person goes on
	VerbAbort   = "abort"   // it is put back
	VerbRetry   = "retry"   // the last rollout, which was put back, begins again
)

// Control obeys a person's command. One that does not fit is a fault of kind
// Conflict: of two people who say the same, the second one meets it.
func Control(now time.Time, s State, actor string, c Command) (State, []Event, error) {
	d := &decider{now: now, s: s.clone()}
	r := d.s.Rollout
	switch {
	case actor == "":
		return s, nil, fault.New(fault.Invalid, "nobody asks for %s: a command has an actor", c.Verb)
	case !slices.Contains([]string{VerbPause, VerbResume, VerbApprove, VerbAbort}, c.Verb):
		return s, nil, fault.New(fault.Invalid, "command %q is not known", c.Verb).Detail("known: pause, resume, approve, abort, retry").Mend("say one of them")
	case r == nil:
		return s, nil, fault.New(fault.Conflict, "no rollout is in flight in %s/%s", s.App, s.Env).Mend("look what there was:  ashlar history %s", s.Env)
	}
	said := &Said{By: actor, At: now, Reason: c.Reason}
	if err := d.obey(r, c.Verb, said); err != nil {
		return s, nil, err
	}
	return d.s, d.events, nil
}

func (d *decider) obey(r *Rollout, verb string, said *Said) error {
	no := func(format string, args ...any) error {
		what := fmt.Sprintf("rollout %d (release %d) ", r.Number, r.To.Number) + fmt.Sprintf(format, args...)
		return fault.New(fault.Conflict, "%s", what).At(d.s.App+"/"+d.s.Env).Mend("look at it:  ashlar rollout status %s", d.s.Env)
	}
	over := r.Step == Reverting || r.Step == Retiring
	switch {
	case over:
		return no("is %s already", r.Step)
	case verb == VerbPause && r.Paused != nil:
		return no("is paused already, by %s", r.Paused.By)
	case verb == VerbResume && r.Paused == nil:
		return no("is not paused")
	case verb == VerbApprove && !r.wantsApproval():
		return no("does not wait for an approval, it is %s", r.Step)
	}
	kind := map[string]string{VerbPause: "rollout.paused", VerbResume: "rollout.unpaused", VerbApprove: "rollout.approved"}[verb]
	switch verb {
	case VerbPause:
		r.Paused = said
	case VerbResume:
		r.Paused, r.ProgressAt = nil, d.now
	case VerbApprove:
		r.Approved, r.ProgressAt = said, d.now
	case VerbAbort:
		what := "aborted by " + said.By
		if said.Reason != "" {
			what += ": " + said.Reason
		}
		d.revert(Failure{What: what, Blameless: true})
		return nil
	}
	d.event(Event{Kind: kind, Release: r.To.Release, Reason: said.Reason, Data: map[string]string{"by": said.By}})
	return nil
}

// stage is the stage at hand; nil outside of Shifting.
func (r *Rollout) stage() *Stage {
	if r.Step != Shifting || r.Stage >= len(r.stages()) {
		return nil
	}
	return &r.stages()[r.Stage]
}

// stages are those before the whole: none for a rollback, which takes all at once,
// nor where there is no traffic to divide.
func (r *Rollout) stages() []Stage {
	st := r.To.Strategy
	if r.Kind != KindDeploy || r.From == nil || st.Kind != BlueGreen && (st.Kind != Canary || !r.shifts()) {
		return nil
	}
	return st.Stages
}

// shifts says whether any component has a share of its traffic to give: one with a
// route whose new instances run beside the old.
func (r *Rollout) shifts() bool {
	return slices.ContainsFunc(r.To.Components, func(c Component) bool {
		from := r.From.named(c.Name)
		return c.Route != nil && from != nil && from.Route != nil && how(r, c.Name) == beside
	})
}

// wantsApproval says whether the stage at hand waits for a person.
func (r *Rollout) wantsApproval() bool {
	st := r.stage()
	return st != nil && st.Approve && r.Approved == nil
}

// Withdraw takes a rollout that waits out of the queue: the last one to the release, or
// without one the only one that waits. It gives that.
func Withdraw(s State, actor string, release digest.Digest, reason string) (State, Queued, []Event, error) {
	at := -1
	for i, q := range s.Queue {
		if release == "" || q.To.Release == release {
			at = i
		}
	}
	no := func(format string, args ...any) (State, Queued, []Event, error) {
		return s, Queued{}, nil, fault.New(fault.Conflict, format, args...).At(s.App+"/"+s.Env).Mend("look at what waits:  ashlar rollout status %s", s.Env)
	}
	switch {
	case actor == "":
		return s, Queued{}, nil, fault.New(fault.Invalid, "nobody withdraws a rollout: who does has a name")
	case len(s.Queue) == 0:
		return no("nothing waits in %s", s.Env)
	case at < 0:
		return no("no rollout to that release waits in %s", s.Env)
	case release == "" && len(s.Queue) > 1:
		return no("%d rollouts wait in %s: say which, by its release", len(s.Queue), s.Env)
	}
	q := s.Queue[at]
	s = s.clone()
	if s.Queue = slices.Delete(slices.Clone(s.Queue), at, at+1); len(s.Queue) == 0 {
		s.Queue = nil
	}
	why := "withdrawn by " + actor
	if reason != "" {
		why += ": " + reason
	}
	return s, q, []Event{{Kind: "rollout.withdrawn", Release: q.To.Release, Reason: why, Data: map[string]string{"by": actor, "kind": q.Kind}}}, nil
}

// Lift ends the quarantine of a release. Whoever does says why. It changes nothing
// where the release is not in quarantine.
func Lift(s State, actor string, release digest.Digest, reason string) (State, []Event, error) {
	q, bad := s.Quarantine[release]
	switch {
	case !bad:
		return s, nil, nil
	case strings.TrimSpace(reason) == "" || actor == "":
		return s, nil, fault.New(fault.Invalid, "a quarantine is lifted with a reason").At(string(release)).
			Mend("say why it will work now: --reason \"...\"")
	}
	s = s.clone()
	s.Quarantine = without(s.Quarantine, release)
	return s, []Event{{Kind: "release.lifted", Release: release, Reason: reason, Data: map[string]string{"failed": q.Why}}}, nil
}

// Rehearsed remembers whether a rollback would work.
func (s State) Rehearsed(r Readiness) (State, []Event) {
	s = s.clone()
	s.Readiness = &r
	e := Event{Kind: "rollback.possible", Release: r.Release, Reason: "everything that it needs is on hand"}
	if !r.OK {
		e.Kind, e.Reason = "rollback.impossible", strings.Join(r.Why, "; ")
	}
	return s, []Event{e}
}
