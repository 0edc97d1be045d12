package conformance

import (
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	spec "github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// refused starts an instance that must be refused with Conflict, and leave nothing.
func (s *suite) refused(env rollout.Key, in rollout.Instance, what spec.Spec) {
	s.t.Helper()
	if err := s.world.Platform.Start(s.t.Context(), env, in, what); err == nil || fault.Of(err).Kind != fault.Conflict {
		s.t.Errorf("start of %s: %v; it must be refused with a conflict", in.ID, err)
	}
	if o, there := s.find(in.ID); there {
		s.t.Errorf("it was refused and is listed: %+v", o)
	}
}

func testHolder(t *testing.T, s *suite) {
	first := s.start(Holds)
	second, what := s.order(Holds)
	s.refused(suiteEnv, second, what)
	s.world.Platform = s.world.Reopen(t)
	s.refused(suiteEnv, second, what)
	s.must(s.world.Platform.Start(t.Context(), otherEnv, rollout.Instance{ID: "other", Component: "holds"}, what)) // a volume of its own
	s.must(s.world.Platform.Stop(t.Context(), first.ID))
	s.untilPhase(first.ID, rollout.Exited)
	s.must(s.world.Platform.Remove(t.Context(), first.ID))
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, second, what))
	s.untilPhase(second.ID, rollout.Ready)
}

func testShared(t *testing.T, s *suite) {
	first, second := s.start(Shares), s.start(Shares)
	s.untilPhase(first.ID, rollout.Ready)
	s.untilPhase(second.ID, rollout.Ready)
}

func testFence(t *testing.T, s *suite) {
	fenced := func(token int64) (rollout.Instance, spec.Spec) {
		in, what := s.order(Plain)
		in.Fence = token
		return in, what
	}
	holder, what := fenced(2)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, holder, what))
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, holder, what)) // a lost reply
	s.must(s.world.Platform.Remove(t.Context(), holder.ID))
	for range 2 {
		for token := range int64(2) {
			late, what := fenced(token + 1)
			s.refused(suiteEnv, late, what)
		}
		s.world.Platform = s.world.Reopen(t)
	}
	late, what := fenced(1)
	s.must(s.world.Platform.Start(t.Context(), otherEnv, late, what)) // tokens of its own
	next, what := fenced(3)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, next, what))
	s.untilPhase(next.ID, rollout.Ready)
}
