package main

import (
	"context"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// ahead gets ready for a deploy that may follow, while its client still builds or
// its plan is read: shims for as many instances as there are now, and the look
// whether every byte of what was built is on hand. Nothing depends on it.
func (s *server) ahead(key engine.Key, rel *release.Release) {
	ctx := context.Background()
	if rel != nil {
		go func() {
			for _, c := range rel.Environments[key.Env].Components {
				if s.have.Check(ctx, c.Spec) != nil {
					return // the deploy will tell
				}
			}
		}()
		return
	}
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
