package conformance

import (
	"context"
	"slices"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// testJob is what the job of a hook relies on: it ends by itself, and how it ended is
// known until somebody has taken note and removes it.
func testJob(t *testing.T, s *suite) {
	in, what := s.order(Exits)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, in, what))
	before := s.untilPhase(in.ID, rollout.Exited)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, in, what)) // a lost reply: it is not run twice
	s.world.Platform = s.world.Reopen(t)
	after := s.untilPhase(in.ID, rollout.Exited)
	if before.Exit == nil || after.Exit == nil || after.Exit.Code != before.Exit.Code || !after.Exit.At.Equal(before.Exit.At) || !slices.Equal(after.Tail, before.Tail) {
		t.Errorf("it was told as %+v %q, and then as %+v %q", before.Exit, before.Tail, after.Exit, after.Tail)
	}
	s.must(s.world.Platform.Remove(t.Context(), in.ID))
	if _, there := s.find(in.ID); there {
		t.Error("it is told after it was removed")
	}
}

func testReopen(t *testing.T, s *suite) {
	serves, plain := s.start(Serves), s.start(Plain)
	before := s.untilPhase(serves.ID, rollout.Ready)
	s.world.Platform = s.world.Reopen(t)
	if o, ok := s.find(serves.ID); !ok || o.Phase != rollout.Unknown && o.Phase != rollout.Ready {
		t.Errorf("right after the change of observer: %+v", o)
	}
	after := s.untilPhase(serves.ID, rollout.Ready)
	if !after.StartedAt.Equal(before.StartedAt) || after.Address != before.Address || after.Spec != before.Spec {
		t.Errorf("was %+v, is %+v", before, after)
	}
	s.untilPhase(plain.ID, rollout.Ready)
	s.must(s.world.Platform.Stop(t.Context(), serves.ID))
	s.untilPhase(serves.ID, rollout.Exited)
}

func testReopenExited(t *testing.T, s *suite) {
	in := s.start(Stubborn)
	s.untilPhase(in.ID, rollout.Ready)
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	s.world.Platform = s.world.Reopen(t) // while it is stopping: the grace goes on
	o := s.untilPhase(in.ID, rollout.Exited)
	if o.Exit == nil || o.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", o.Exit)
	}
	s.world.Platform = s.world.Reopen(t) // once it has ended
	if o, ok := s.find(in.ID); !ok || o.Phase != rollout.Exited || o.Exit == nil || o.Exit.Signal != "SIGKILL" {
		t.Errorf("after its end, to a new observer: %+v", o)
	}
	s.must(s.world.Platform.Remove(context.WithoutCancel(t.Context()), in.ID))
	if got := s.list(suiteEnv); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
}
