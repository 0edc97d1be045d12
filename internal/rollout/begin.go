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
	Kind   string // KindDeploy or KindRollback
	To     Target
	Actor  string
	Reason string
}

// Begin puts a rollout in flight. While one is, it refuses with a fault of kind
// Conflict (I7); a target that cannot be served is a fault of kind Invalid.
func Begin(now time.Time, s State, q Request) (State, []Event, error) {
	if r := s.Rollout; r != nil {
		return s, nil, fault.New(fault.Conflict, "rollout %d (release %d) is in flight since %s, step %s",
			r.Number, r.To.Number, r.StartedAt.UTC().Format(time.RFC3339), r.Step).
			At(s.App+"/"+s.Env).Mend("wait for it to end: ashlar status %s --watch", s.Env)
	}
	if q.To.Strategy.Kind != "blue-green" {
		return s, nil, fault.New(fault.Invalid, "strategy %q is not known", q.To.Strategy.Kind).Mend("write strategy: blue-green")
	}
	next := s.clone()
	next.Rollouts++
	next.Platform = q.To.Platform
	next.Rollout = &Rollout{
		Number: next.Rollouts, Kind: q.Kind, From: s.Current, To: q.To, Step: Laying, StepAt: now,
		Actor: q.Actor, Reason: q.Reason, StartedAt: now,
	}
	data := map[string]string{"kind": q.Kind, "to": strconv.Itoa(q.To.Number)}
	why := q.Reason
	if s.Current != nil {
		data["from"] = strconv.Itoa(s.Current.Number)
	}
	if why == "" {
		why = fmt.Sprintf("%s of release %d", q.Kind, q.To.Number)
	}
	return next, []Event{{Kind: "rollout.begun", Release: q.To.Release, Reason: why, Data: data}}, nil
}

// RollbackTo names the release that a rollback without an argument leads to: the
// youngest known-good one that is not current. Empty: there is none.
func (s State) RollbackTo() digest.Digest {
	for _, d := range slices.Backward(s.KnownGood) {
		if s.Current == nil || s.Current.Release != d {
			return d
		}
	}
	return ""
}
