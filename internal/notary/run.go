package notary

import (
	"context"
	"time"
)

// settle is how long Run waits after a change before it signs: a rollout appends
// many entries within moments, and one checkpoint is enough. What was appended
// since could be rolled back unnoticed until it is signed.
const settle = 500 * time.Millisecond

// Run publishes whenever the record has grown, and anchors when it is time, until
// ctx ends; then once more. appended is the record's signal: see store.Appended.
func (n *Notary) Run(ctx context.Context, appended func() <-chan struct{}) error {
	for {
		grown := appended() // before looking, so that nothing is missed
		n.look(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		case <-time.After(n.Every):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
	}
}

// Close publishes and anchors what was appended last.
func (n *Notary) Close(ctx context.Context) error {
	now, err := n.Publish(ctx)
	if err != nil {
		return err
	}
	return n.anchor(ctx, now, true)
}

func (n *Notary) look(ctx context.Context) {
	now, err := n.Publish(ctx)
	if err == nil {
		err = n.anchor(ctx, now, false)
	}
	if err != nil && ctx.Err() == nil {
		n.Log.Error("cannot publish the record's checkpoint", "err", err)
	}
}
