package local

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
)

var _ engine.Rehearser = (*Platform)(nil)

// TestRehearse: what could not be started is told without anything being started.
func TestRehearse(t *testing.T) {
	w := newWorld(t, withSecrets)
	for name, c := range map[string]struct {
		alter func(*release.Spec)
		kind  fault.Kind // empty: it could be started
	}{
		"as it is": {func(*release.Spec) {}, ""},
		"with a secret": {func(s *release.Spec) {
			s.Secrets = []release.Secret{{Name: "key", Version: 1, Path: "/run/secrets/key"}}
		}, ""},
		"with a secret that is not": {func(s *release.Spec) {
			s.Secrets = []release.Secret{{Name: "key", Version: 2, Path: "/run/secrets/key"}}
		}, fault.NotFound},
		"with a tree that is not": {func(s *release.Spec) { s.Tree = digest.FromString("nothing") }, fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec("serves", c.alter)
			err := w.Rehearse(t.Context(), env, s)
			switch {
			case c.kind == "" && err != nil:
				t.Error(err)
			case c.kind != "" && (err == nil || fault.Of(err).Kind != c.kind):
				t.Errorf("%v, want a fault of kind %s", err, c.kind)
			}
			if seen, err := w.List(t.Context(), env); err != nil || len(seen) > 0 {
				t.Errorf("%d instances, %v", len(seen), err)
			}
		})
	}
}
