package main

import (
	"context"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/prometheus"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var _ engine.Metrics = metrics{}

// metrics is engine.Metrics: Prometheus, with the newest version of the secret that it
// asks for.
type metrics struct {
	secret func(ctx context.Context, env rollout.Key, name string) ([]byte, error)
}

func (m metrics) Query(ctx context.Context, env rollout.Key, q rollout.Question) (float64, bool, error) {
	var credentials []byte
	if q.Secret != "" {
		var err error
		if credentials, err = m.secret(ctx, env, q.Secret); err != nil {
			return 0, false, err
		}
	}
	return prometheus.Query(ctx, q.Base, q.Expr, credentials)
}
