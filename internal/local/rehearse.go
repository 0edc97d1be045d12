package local

import (
	"context"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// Rehearse says why an instance of the spec could not be started now: a root that does
// not mount, a secret's version that is not there or cannot be read. It leaves nothing
// behind.
func (p *Platform) Rehearse(ctx context.Context, env rollout.Key, spec release.Spec) error {
	if _, err := p.secretValues(ctx, meta{Key: env, Spec: spec}); err != nil {
		return err
	}
	return seal.Try(p.cfg.Objects, spec.Settings, spec.Tree)
}
