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
		out = e.query(ctx, questions)
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

func (e *Engine) query(ctx context.Context, questions []rollout.Question) map[string]rollout.Metric {
	out := make(map[string]rollout.Metric, len(questions))
	for _, q := range questions {
		if e.Metrics == nil {
			out[q.Expr] = rollout.Metric{Error: "this server asks no Prometheus"}
			continue
		}
		value, found, err := e.Metrics.Query(ctx, q.Base, q.Expr)
		m := rollout.Metric{Value: value, Found: found}
		if err != nil {
			m.Error = fault.Of(err).What
		}
		out[q.Expr] = m
	}
	return out
}

// frozen says whether the first rollout that waits has to wait for the end of a
// window in which nothing is deployed.
func frozen(s rollout.State, now time.Time) (*rollout.Frozen, error) {
	if len(s.Queue) == 0 {
		return nil, nil
	}
	return window(s.Queue[0].To.Strategy.Freeze, now)
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
