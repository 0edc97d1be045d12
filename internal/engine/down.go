package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Down begins a rollout that leaves nothing of the environment running: its
// address closes, requests under way finish, every instance is stopped and
// removed. It is a rollout like any other, to the current release without its
// components; deploying that release again brings it back.
func (e *Engine) Down(ctx context.Context, now time.Time, actor string, key Key, reason string) (Begun, error) {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	state, version, err := e.Store.State(ctx, key)
	if err != nil {
		return Begun{}, fmt.Errorf("read the state of %s: %w", key, err)
	}
	if state.Rollout == nil && (state.Current == nil || len(state.Current.Components) == 0) {
		return Begun{}, fault.New(fault.NotFound, "nothing is running in %s", key).Mend("see what there is:  ashlar status")
	}
	q := rollout.Request{Kind: rollout.KindDown, Actor: actor, Reason: reason}
	if c := state.Current; c != nil {
		q.To = c.Emptied()
	} else {
		q.To = state.Rollout.To.Emptied() // it waits, or is refused
	}
	return e.launch(ctx, now, key, m, state, version, q)
}
