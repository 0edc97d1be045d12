package local

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
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

// TestRoom: one more of a component is taken to use what one of it uses now, in this
// environment; what does not run counts nothing.
func TestRoom(t *testing.T) {
	left := int64(1 << 40)
	w := newWorld(t, func(c *Config) { c.memoryLeft = func() (int64, error) { return left, nil } })
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
	used := w.uses(env, "guest")
	if used < 1<<20 || used > 100<<20 {
		t.Fatalf("an instance of the guest uses %d bytes", used)
	}
	for _, c := range []struct {
		left  int64
		env   rollout.Key
		more  map[string]int
		fault string
	}{
		{1 << 40, env, map[string]int{"guest": 100}, ""},
		{used / 2, env, map[string]int{"guest": 1, "web": 2}, "too little memory is left for 1 more of guest and 2 more of web beside what runs"},
		{used * 3, env, map[string]int{"guest": 9}, "too little memory is left for 9 more of guest beside what runs"},
		{used / 2, env, map[string]int{"web": 1}, ""},
		{used / 2, rollout.Key{App: env.App, Env: "another"}, map[string]int{"guest": 1}, ""},
	} {
		left = c.left
		switch err := w.Room(t.Context(), c.env, c.more); {
		case c.fault == "" && err != nil, c.fault != "" && (err == nil || fault.Of(err).What != c.fault):
			t.Errorf("%d bytes are left for %v: %v", c.left, c.more, err)
		}
	}
	if n, err := memoryLeft(); err != nil || n < 1<<20 {
		t.Errorf("the host has %d bytes left, %v", n, err)
	}
}
