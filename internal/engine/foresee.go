package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Foreseen is an instance that a deploy would order first.
type Foreseen struct {
	Instance rollout.Instance
	Spec     release.Spec
}

// Foresee tells which instances a deploy of the release, were it asked for now, would
// start at once: what is decided is decided as ever, and neither kept nor done. The
// release need not be stored. Jobs are left out. While a rollout is in flight
// nothing can be told.
func (e *Engine) Foresee(ctx context.Context, now time.Time, key Key, rel release.Release) ([]Foreseen, error) {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", key, err)
	}
	state.App, state.Env = key.App, key.Env
	if state.Rollout != nil {
		return nil, nil
	}
	d, err := rel.Digest()
	if err != nil {
		return nil, err
	}
	to, err := TargetOf(Stored{App: rel.App, Digest: d}, rel, key.Env)
	if err != nil {
		return nil, err
	}
	platform := e.Platforms[to.Platform]
	if platform == nil {
		return nil, nil
	}
	next, _, err := rollout.Begin(now, state, rollout.Request{Kind: rollout.KindDeploy, To: to, Actor: Actor})
	if err != nil {
		return nil, err
	}
	seen, err := e.observe(ctx, key, platform, m)
	if err != nil {
		return nil, err
	}
	return foreseen(e.Decide(now, next, seen).Do, rel.Environments[key.Env]), nil
}

func foreseen(actions []rollout.Action, env release.Environment) []Foreseen {
	var out []Foreseen
	for _, a := range actions {
		start, ok := a.(rollout.StartInstance)
		if !ok || start.Instance.Hook != "" {
			continue
		}
		spec := env.Components[start.Instance.Component].Spec
		if spec.Digest() == start.Instance.Spec {
			out = append(out, Foreseen{start.Instance, spec})
		}
	}
	return out
}
