package main

import (
	"context"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/event"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// newCourier makes what brings events to the webhooks of the environments' current
// releases.
func (s *server) newCourier() *event.Courier {
	return event.New(event.Config{
		Store: s.store, Source: "/ashlar/" + s.host, Log: s.log, Now: time.Now, Pause: pause,
		Hooks: func(ctx context.Context, key engine.Key) ([]release.Webhook, error) {
			_, rel, err := s.engine.Current(ctx, key)
			if err != nil || rel == nil {
				return nil, err
			}
			return rel.Environments[key.Env].Events, nil
		},
		Secret: s.secrets.values.Newest,
	})
}

// pause waits for d, or for the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
