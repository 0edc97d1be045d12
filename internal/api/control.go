package api

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// ControlRequest is a person's word to a rollout: POST /v1/rollout.
type ControlRequest struct {
	App    string `json:"app"`
	Env    string `json:"env"`
	Verb   string `json:"verb"` // pause, resume, approve, abort or retry
	Reason string `json:"reason,omitempty"`
}

// WithdrawRequest takes back a rollout that waits: POST /v1/rollout/withdraw.
type WithdrawRequest struct {
	App     string `json:"app"`
	Env     string `json:"env"`
	Release string `json:"release,omitempty"` // number or digest; empty: the only one that waits
	Reason  string `json:"reason,omitempty"`
}

// Quarantined is a release that failed in an environment and is deployed nowhere
// until somebody lifts that.
type Quarantined struct {
	ReleaseRef
	Env     string    `json:"env"`
	At      time.Time `json:"at"`
	Rollout int       `json:"rollout"` // that failed
	Why     string    `json:"why"`
}

// LiftRequest asks for the end of a release's quarantine: POST /v1/quarantine/lift.
type LiftRequest struct {
	App     string `json:"app"`
	Release string `json:"release"` // number or digest
	Reason  string `json:"reason"`
}

// Lifted is a release whose quarantine has ended.
type Lifted struct {
	ReleaseRef
	Envs []string `json:"envs"` // in which it was in quarantine
}

func (s *Server) control(ctx context.Context, r request) (Begun, error) {
	var q ControlRequest
	if err := r.into(&q); err != nil {
		return Begun{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return Begun{}, err
	}
	unhold, err := s.Hold(ctx) // a retry lays a release again
	if err != nil {
		return Begun{}, err
	}
	defer unhold()
	ro, err := s.Engine.Control(ctx, s.Now(), r.actor, key, rollout.Command{Verb: q.Verb, Reason: q.Reason})
	if err != nil {
		return Begun{}, err
	}
	return s.sinceItBegan(ctx, key, ro)
}

func (s *Server) withdraw(ctx context.Context, r request) (rollout.Queued, error) {
	var q WithdrawRequest
	if err := r.into(&q); err != nil {
		return rollout.Queued{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return rollout.Queued{}, err
	}
	return s.Engine.Withdraw(ctx, s.Now(), r.actor, key, q.Release, q.Reason)
}

// inFlight gives the rollout in flight.
func (s *Server) inFlight(ctx context.Context, r request) (Begun, error) {
	key, err := r.key()
	if err != nil {
		return Begun{}, err
	}
	state, _, err := s.Store.State(ctx, key)
	if err != nil {
		return Begun{}, err
	}
	if state.Rollout == nil {
		return Begun{}, fault.New(fault.NotFound, "no rollout is in flight in %s", key).Mend("look what there was:  ashlar history %s", key.Env)
	}
	return s.sinceItBegan(ctx, key, *state.Rollout)
}

// sinceItBegan finds where a rollout began in the record.
func (s *Server) sinceItBegan(ctx context.Context, key engine.Key, ro rollout.Rollout) (Begun, error) {
	begun := Begun{Rollout: ro}
	entries, err := s.Store.Entries(ctx, key, 0, -1)
	for _, e := range slices.Backward(entries) {
		if e.Kind == "rollout.begun" && e.Rollout == ro.Number {
			begun.Index = e.Index
			break
		}
	}
	return begun, err
}

func (s *Server) why(ctx context.Context, r request) ([]rollout.Cause, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	causes, err := s.Engine.Why(ctx, s.Now(), key)
	if causes == nil {
		causes = []rollout.Cause{}
	}
	return causes, err
}

func (s *Server) quarantine(ctx context.Context, r request) ([]Quarantined, error) {
	app := r.query.Get("app")
	if app == "" {
		return nil, missing("app")
	}
	keys, err := s.Store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	list := []Quarantined{}
	for _, key := range keys {
		if key.App != app {
			continue
		}
		state, _, err := s.Store.State(ctx, key)
		if err != nil {
			return nil, err
		}
		for d, q := range state.Quarantine {
			list = append(list, Quarantined{ReleaseRef: s.refOf(ctx, d), Env: key.Env, At: q.At, Rollout: q.Rollout, Why: q.Why})
		}
	}
	slices.SortFunc(list, func(a, b Quarantined) int { return a.At.Compare(b.At) })
	return list, nil
}

// refOf names a release, by its digest alone if it is not known.
func (s *Server) refOf(ctx context.Context, d digest.Digest) ReleaseRef {
	ref := ReleaseRef{Digest: d}
	if stored, err := s.Store.Release(ctx, d); err == nil {
		ref.Number = stored.Number
	}
	return ref
}

func (s *Server) lift(ctx context.Context, r request) (Lifted, error) {
	var q LiftRequest
	if err := r.into(&q); err != nil {
		return Lifted{}, err
	}
	if q.App == "" {
		return Lifted{}, missing("app")
	}
	stored, err := s.Engine.FindRelease(ctx, q.App, q.Release)
	if err != nil {
		return Lifted{}, err
	}
	in, err := s.Engine.Lift(ctx, s.Now(), r.actor, q.App, stored.Digest, q.Reason)
	if err != nil {
		return Lifted{}, err
	}
	if len(in) == 0 {
		return Lifted{}, fault.New(fault.Conflict, "release %d is not in quarantine", stored.Number).Mend("list what is:  ashlar quarantine ls")
	}
	out := Lifted{ReleaseRef: refOf(stored)}
	for _, key := range in {
		out.Envs = append(out.Envs, key.Env)
	}
	return out, nil
}

// options are how a rollout is asked for.
func (q BeginRequest) options() engine.DeployOptions {
	return engine.DeployOptions{Reason: q.Reason, Queue: q.Queue, Supersede: q.Supersede, Force: q.Force, BreakGlass: q.BreakGlass}
}
