package main

import (
	"context"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/prometheus"
)

var _ engine.Metrics = metrics{}

// metrics is engine.Metrics: Prometheus.
type metrics struct{}

func (metrics) Query(ctx context.Context, base, expr string) (float64, bool, error) {
	return prometheus.Query(ctx, base, expr)
}
