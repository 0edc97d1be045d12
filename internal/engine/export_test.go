package engine

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TargetOf and Put let tests make many environments of one release without a release
// for each.
func (e *Engine) TargetOf(ctx context.Context, d digest.Digest, env string) (rollout.Target, error) {
	stored, rel, err := e.release(ctx, d)
	if err != nil {
		return rollout.Target{}, err
	}
	return TargetOf(stored, rel, env)
}

func (e *Engine) Put(ctx context.Context, now time.Time, key Key, s rollout.State, events []rollout.Event) error {
	_, err := e.Store.Commit(ctx, key, 0, s, entries(now, "dana", s, events))
	return err
}

// Stand lets tests ask at once what is found out now and then.
func (e *Engine) Stand(ctx context.Context, now time.Time, key Key) error {
	return e.stand(ctx, now, key)
}
