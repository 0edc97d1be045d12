package main

import (
	"context"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// ahead gets ready for a deploy that may follow, while its client still builds or
// its plan is read. Nothing depends on it.
func (s *server) ahead(key engine.Key, rel *release.Release) {
	if rel == nil {
		s.expect(context.Background(), key)
	} else {
		go s.lay(context.Background(), key, *rel)
	}
}

// lay has the instances made that a deploy would start first, short of starting their
// programs, and finds whether every byte of the release is on hand, which a deploy will
// ask. What is wrong the deploy will tell.
func (s *server) lay(ctx context.Context, key engine.Key, rel release.Release) {
	env := rel.Environments[key.Env]
	if env.Platform != "local" {
		return
	}
	first, err := s.engine.Foresee(ctx, time.Now(), key, rel)
	if err != nil {
		return
	}
	for _, f := range first {
		s.platform.Prepare(key, f.Instance, f.Spec)
	}
	for _, c := range env.Components {
		if s.have.Check(ctx, c.Spec) != nil {
			return
		}
	}
}

// expect has as many shims born as there are instances now.
func (s *server) expect(ctx context.Context, key engine.Key) {
	state, _, err := s.store.State(ctx, key)
	if err != nil || state.Platform != "local" {
		return
	}
	running := 0
	for _, o := range state.Instances {
		if !o.Leaving {
			running++
		}
	}
	s.platform.Expect(running)
}
