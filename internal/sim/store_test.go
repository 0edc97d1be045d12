package sim_test

import (
	"testing"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/sim"
)

func TestStoreConforms(t *testing.T) {
	conformance.Store(t, true, func(*testing.T) conformance.ServerStore { return sim.NewStore() })
}

func TestStoreCloneGoesItsOwnWay(t *testing.T) {
	env := engine.Key{App: "site", Env: "production"}
	commit := func(s *sim.Store, version int64, n int) {
		t.Helper()
		if _, err := s.Commit(t.Context(), env, version, rollout.State{Ordered: n}, []record.Entry{{Actor: "a", Kind: "k"}}); err != nil {
			t.Fatal(err)
		}
	}
	a := sim.NewStore()
	commit(a, 0, 1)
	b := a.Clone()
	commit(a, 1, 2)
	commit(b, 1, 3)
	for s, want := range map[*sim.Store]int{a: 2, b: 3} {
		state, version, err := s.State(t.Context(), env)
		if err != nil || state.Ordered != want || version != 2 {
			t.Errorf("state %d, version %d, %v; want state %d, version 2", state.Ordered, version, err, want)
		}
		if list, err := s.Entries(t.Context(), engine.Key{}, 0, -1); err != nil || len(list) != 2 {
			t.Errorf("%d entries, %v; want 2", len(list), err)
		}
	}
}
