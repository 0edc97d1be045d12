package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// admission is what is observed of the policy: the answer to a plea. Nil only where
// nobody judges; with nothing to ask it is the zero Admission, which admits nothing.
func (e *Engine) admission(ctx context.Context, now time.Time, p *rollout.Plea) *rollout.Admission {
	if e.Admitter == nil {
		return nil
	}
	if p == nil {
		return &rollout.Admission{}
	}
	a, err := e.Admitter.Admit(ctx, now, *p)
	if err != nil {
		a = rollout.Admission{Error: fault.Of(err).What}
	}
	a.Release = p.Release
	return &a
}

// admit refuses a request that the policy does not admit, and records that.
func (e *Engine) admit(ctx context.Context, now time.Time, key Key, q *rollout.Request) error {
	if q.BreakGlass && strings.TrimSpace(q.Reason) == "" {
		return fault.New(fault.Invalid, "who breaks the glass says why").Mend(`add --reason "..."`)
	}
	a := e.admission(ctx, now, q.Plea(key))
	q.Admission = a
	switch {
	case a == nil || a.Admitted && a.Error == "":
		return nil
	case a.Error != "":
		return fault.New(fault.Unavailable, "whether the policy of %s admits release %d could not be found out: %s", key.Env, q.To.Number, a.Error).
			At(key.String()).Mend("see what is missing:  ashlar policy test %s %d", key.Env, q.To.Number)
	}
	entry := record.Entry{
		Time: now.UTC(), Actor: q.Actor, Kind: "admission.refused", App: key.App, Env: key.Env, Release: q.To.Release,
		Reason: a.Why, Data: a.Data,
	}
	if err := e.keep(ctx, q.To.Release, a.Facts); err != nil {
		return err
	}
	if err := e.Store.Append(ctx, []record.Entry{entry}); err != nil {
		return fmt.Errorf("record that release %d was refused: %w", q.To.Number, err)
	}
	return fault.New(fault.Refused, "the policy of %s does not admit release %d", key.Env, q.To.Number).At(key.String()).Detail(a.Details...).
		Mend("see what is known and what would change it:  ashlar policy test %s %d", key.Env, q.To.Number)
}

// keep keeps what a verdict was judged by, if there was one.
func (e *Engine) keep(ctx context.Context, release digest.Digest, facts []byte) error {
	if len(facts) == 0 {
		return nil
	}
	if err := e.Admitter.Keep(ctx, release, facts); err != nil {
		return fmt.Errorf("keep what release %s was judged by: %w", release, err)
	}
	return nil
}

// Judge has an environment judged anew soon: its policy was replaced.
func (e *Engine) Judge(key Key) {
	e.Wake(key)
	e.rehearseSoon(key)
}

// stand finds out what the policy has against the release that is live, by its rules for
// rollbacks, and records a change of that. One for which the glass was broken is known to
// be there in spite of it.
func (e *Engine) stand(ctx context.Context, now time.Time, key Key) error {
	state, _, err := e.Store.State(ctx, key)
	c := state.Current
	if err != nil || e.Admitter == nil || c == nil || len(c.Components) == 0 || c.BreakGlass != "" {
		return err
	}
	a := e.admission(ctx, now, &rollout.Plea{Key: key, Release: c.Release, Number: c.Number, Kind: rollout.KindRollback, Actor: Actor})
	return e.change(ctx, now, Actor, key, func(s rollout.State) (rollout.State, []rollout.Event, error) {
		next, events := s.Stand(now, *a)
		return next, events, nil
	})
}
