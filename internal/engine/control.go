package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Control obeys a person's command to the rollout in flight and gives it as it is
// afterwards; after a retry that is the new one. Of two people who say the same at
// once the second gets a conflict.
func (e *Engine) Control(ctx context.Context, now time.Time, actor string, key Key, c rollout.Command) (rollout.Rollout, error) {
	if c.Verb == rollout.VerbRetry {
		return e.retry(ctx, now, actor, key, c.Reason)
	}
	var after rollout.Rollout
	err := e.change(ctx, now, actor, key, func(s rollout.State) (rollout.State, []rollout.Event, error) {
		next, events, err := rollout.Control(now, s, actor, c)
		if err == nil {
			after = *next.Rollout
		}
		return next, events, err
	})
	return after, err
}

// Withdraw takes a rollout that waits out of an environment's queue: the last one to
// the release that ref names (number or digest), or without ref the only one. It gives what
// waited.
func (e *Engine) Withdraw(ctx context.Context, now time.Time, actor string, key Key, ref, reason string) (rollout.Queued, error) {
	var release digest.Digest
	if ref != "" {
		stored, err := e.FindRelease(ctx, key.App, ref)
		if err != nil {
			return rollout.Queued{}, err
		}
		release = stored.Digest
	}
	var waited rollout.Queued
	err := e.change(ctx, now, actor, key, func(s rollout.State) (next rollout.State, events []rollout.Event, err error) {
		next, waited, events, err = rollout.Withdraw(s, actor, release, reason)
		return next, events, err
	})
	return waited, err
}

// change replaces an environment's state by what f makes of it, with its entries, in
// one transaction.
func (e *Engine) change(ctx context.Context, now time.Time, actor string, key Key, f func(rollout.State) (rollout.State, []rollout.Event, error)) error {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	return e.changeLocked(ctx, now, actor, key, f)
}

// changeLocked is change with the environment's memory locked.
func (e *Engine) changeLocked(ctx context.Context, now time.Time, actor string, key Key, f func(rollout.State) (rollout.State, []rollout.Event, error)) error {
	state, version, err := e.Store.State(ctx, key)
	if err != nil {
		return fmt.Errorf("read the state of %s: %w", key, err)
	}
	if state.App == "" {
		return fault.New(fault.NotFound, "nothing was ever deployed to %s", key).Mend("deploy to it:  ashlar deploy %s", key.Env)
	}
	next, events, err := f(state)
	if err != nil || len(events) == 0 {
		return err
	}
	if err := e.commit(ctx, now, actor, key, version, next, events); err != nil {
		return fmt.Errorf("record it: %w", err)
	}
	e.Wake(key)
	return nil
}

// retry begins the last rollout again, if it was put back. A release that is in
// quarantine for it is lifted from it, which needs a reason.
func (e *Engine) retry(ctx context.Context, now time.Time, actor string, key Key, reason string) (rollout.Rollout, error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return rollout.Rollout{}, fmt.Errorf("read the state of %s: %w", key, err)
	}
	last := state.LastResult
	switch {
	case state.Rollout != nil:
		return rollout.Rollout{}, fault.New(fault.Conflict, "rollout %d is in flight: there is nothing to retry yet", state.Rollout.Number).
			Mend("look at it:  ashlar rollout status %s", key.Env)
	case last == nil:
		return rollout.Rollout{}, fault.New(fault.NotFound, "no rollout has ended in %s", key).Mend("deploy to it:  ashlar deploy %s", key.Env)
	case last.Outcome == rollout.Live:
		return rollout.Rollout{}, fault.New(fault.Conflict, "rollout %d ended live: there is nothing to retry", last.Number).
			Mend("look at it:  ashlar status %s", key.Env)
	}
	if _, err := e.Lift(ctx, now, actor, key.App, last.Release, reason); err != nil {
		return rollout.Rollout{}, err
	}
	o := DeployOptions{Reason: reason}
	if last.Kind == rollout.KindRollback {
		begun, err := e.Rollback(ctx, now, actor, key, string(last.Release), o)
		return begun.Rollout, err
	}
	begun, err := e.Deploy(ctx, now, actor, key, last.Release, o)
	return begun.Rollout, err
}

// Lift ends the quarantine of a release in every environment of its application and
// gives those in which it was. Whoever does says why.
func (e *Engine) Lift(ctx context.Context, now time.Time, actor, app string, d digest.Digest, reason string) ([]Key, error) {
	in, err := e.quarantines(ctx, app, d)
	if err != nil {
		return nil, err
	}
	for _, key := range in {
		err := e.change(ctx, now, actor, key, func(s rollout.State) (rollout.State, []rollout.Event, error) {
			return rollout.Lift(s, actor, d, reason)
		})
		if err != nil {
			return nil, err
		}
	}
	return in, nil
}

// quarantines lists the application's environments in which a release failed.
func (e *Engine) quarantines(ctx context.Context, app string, d digest.Digest) ([]Key, error) {
	keys, err := e.Store.Environments(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the environments: %w", err)
	}
	var out []Key
	for _, key := range keys {
		if key.App != app {
			continue
		}
		s, _, err := e.Store.State(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("read the state of %s: %w", key, err)
		}
		if _, bad := s.Quarantine[d]; bad {
			out = append(out, key)
		}
	}
	return out, nil
}

// inQuarantine refuses to deploy a release that failed anywhere in its application.
// Going back to one asks only whether it failed here: it may have proven itself here
// and failed elsewhere.
func (e *Engine) inQuarantine(ctx context.Context, key Key, state rollout.State, kind string, rel Stored) error {
	why, bad := state.Quarantine[rel.Digest]
	in := []string{key.Env}
	if kind == rollout.KindDeploy {
		keys, err := e.quarantines(ctx, key.App, rel.Digest)
		if err != nil {
			return err
		}
		in = nil
		for _, k := range keys {
			s, _, err := e.Store.State(ctx, k)
			if err != nil {
				return fmt.Errorf("read the state of %s: %w", k, err)
			}
			why, bad = s.Quarantine[rel.Digest], true
			in = append(in, k.Env)
		}
	}
	if !bad {
		return nil
	}
	return fault.New(fault.Refused, "release %d failed in %s and is in quarantine: %s", rel.Number, strings.Join(in, ", "), why.Why).
		At(key.String()).Mend(`mend it and deploy the new release, or say why it will work now:  ashlar quarantine lift %d --reason "..."`, rel.Number)
}

// Why says what an environment waits for: since when, what would end it, and which
// command can. Nothing means that there is nothing to wait for.
func (e *Engine) Why(ctx context.Context, now time.Time, key Key) ([]rollout.Cause, error) {
	status, err := e.Status(ctx, now, key)
	if err != nil {
		return nil, err
	}
	causes := status.Why
	for _, problem := range status.Problems {
		causes = append(causes, rollout.Cause{What: problem, Since: now, Unblock: "it answering again", Command: "ashlar doctor"})
	}
	if r := status.State.Rollout; r != nil {
		for _, q := range status.State.Queue {
			causes = append(causes, rollout.Cause{
				What: fmt.Sprintf("the %s of release %d waits for rollout %d to end", q.Kind, q.To.Number, r.Number), Since: q.At,
				Unblock: "the end of the rollout in flight", Command: fmt.Sprintf("ashlar rollout withdraw %s --release %d", key.Env, q.To.Number),
			})
		}
	}
	return causes, nil
}
