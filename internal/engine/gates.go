package engine

import (
	"context"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/gate"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// ask gets the values that an analysis in flight needs. What does not answer is part
// of the answer: the analysis has not enough evidence then.
func (e *Engine) ask(ctx context.Context, key Key, questions []rollout.Question) map[string]rollout.Metric {
	var out map[string]rollout.Metric
	if len(questions) > 0 {
		out = e.query(ctx, key, questions)
	}
	m := e.memory(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	m.metrics = out
	return out
}

// answers are the last ones that ask got.
func (e *Engine) answers(key Key) map[string]rollout.Metric {
	m := e.memory(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	return m.metrics
}

func (e *Engine) query(ctx context.Context, key Key, questions []rollout.Question) map[string]rollout.Metric {
	out := make(map[string]rollout.Metric, len(questions))
	for _, q := range questions {
		if e.Metrics == nil {
			out[q.Expr] = rollout.Metric{Error: "this server asks no Prometheus"}
			continue
		}
		value, found, err := e.Metrics.Query(ctx, key, q)
		m := rollout.Metric{Value: value, Found: found}
		if err != nil {
			m.Error = fault.Of(err).What
		}
		out[q.Expr] = m
	}
	return out
}

// turn adds to an observation what may keep the first rollout that waits from its
// turn: a window in which nothing is deployed, and that its release failed elsewhere
// since it was asked for.
func (e *Engine) turn(ctx context.Context, now time.Time, key Key, s rollout.State, seen *rollout.Observation) (err error) {
	if len(s.Queue) == 0 {
		return nil
	}
	first := s.Queue[0].To
	if seen.Frozen, err = window(first.Strategy.Freeze, now); err != nil {
		return err
	}
	in, err := e.quarantines(ctx, key.App, first.Release)
	if err == nil && len(in) > 0 {
		seen.Failed = in[0].Env
	}
	return err
}

func window(declared []rollout.Window, now time.Time) (*rollout.Frozen, error) {
	windows := make([]gate.Window, len(declared))
	for i, w := range declared {
		windows[i] = gate.Window(w)
	}
	until, why, err := gate.Frozen(windows, now, time.LoadLocation)
	if err != nil || until.IsZero() {
		return nil, err
	}
	return &rollout.Frozen{Until: until, Why: why}, nil
}

// thaw refuses a deploy within a freeze, unless a person forces it with a reason. hold
// tells that it has to wait, as it may. Going back is always possible.
func thaw(now time.Time, key Key, q rollout.Request) (hold bool, err error) {
	if q.Kind != rollout.KindDeploy || q.Force {
		return false, nil
	}
	f, err := window(q.To.Strategy.Freeze, now)
	if err != nil || f == nil || q.Queue {
		return f != nil, err
	}
	return false, fault.New(fault.Refused, "nothing is deployed to %s until %s: %s", key.Env, f.Until.UTC().Format(time.RFC3339), strings.TrimSuffix(f.Why, ".")).
		At(key.String()).Mend(`let it wait: --queue; or say why it cannot: --force --reason "..."`)
}
