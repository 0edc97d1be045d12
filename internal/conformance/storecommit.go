package conformance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func commits(t *testing.T, s ServerStore) {
	v1 := mustCommit(t, s, storeKey, 0, rollout.State{App: "site", Ordered: 1}, anEntry("a", storeKey), anEntry("b", storeKey))
	v2 := mustCommit(t, s, storeKey, v1, rollout.State{App: "site", Ordered: 2}, anEntry("c", storeKey))
	if v1 == 0 || v2 == v1 {
		t.Errorf("versions 0, %d, %d are not all different", v1, v2)
	}
	state, version, err := s.State(t.Context(), storeKey)
	mustStore(t, err)
	sameInStore(t, "version", v2, version)
	sameInStore(t, "state", rollout.State{App: "site", Ordered: 2}, state)
	sameInStore(t, "record", []string{"a", "b", "c"}, entryKinds(t, s))
}

func refusesStale(t *testing.T, s ServerStore) {
	v1 := mustCommit(t, s, storeKey, 0, rollout.State{Ordered: 1}, anEntry("a", storeKey))
	v2 := mustCommit(t, s, storeKey, v1, rollout.State{Ordered: 2}, anEntry("b", storeKey))
	before := contentsOf(t, s)
	for _, version := range []int64{0, v1, v2 + 1, -1} {
		if _, err := s.Commit(t.Context(), storeKey, version, rollout.State{Ordered: 9}, []record.Entry{anEntry("x", storeKey)}); !errors.Is(err, rollout.ErrStale) {
			t.Errorf("Commit at version %d = %v, want ErrStale", version, err)
		}
	}
	if _, err := s.Commit(t.Context(), engine.Key{App: "new", Env: "e"}, 1, rollout.State{}, nil); !errors.Is(err, rollout.ErrStale) {
		t.Errorf("Commit at version 1 of what is not there = %v, want ErrStale", err)
	}
	sameInStore(t, "contents", before, contentsOf(t, s))
}

func commitsWithoutEntries(t *testing.T, s ServerStore) {
	mustCommit(t, s, storeKey, 0, rollout.State{Ordered: 1})
	mustStore(t, s.Append(t.Context(), nil))
	sameInStore(t, "record", []string{}, entryKinds(t, s))
	state, _, err := s.State(t.Context(), storeKey)
	mustStore(t, err)
	sameInStore(t, "state", rollout.State{Ordered: 1}, state)
}

func failsWhole(t *testing.T, s ServerStore) {
	version := mustCommit(t, s, storeKey, 0, rollout.State{Ordered: 1}, anEntry("a", storeKey))
	before := contentsOf(t, s)
	bad := record.Entry{Time: storeTime, Kind: "nobody did it"}
	if _, err := s.Commit(t.Context(), storeKey, version, rollout.State{Ordered: 2}, []record.Entry{anEntry("b", storeKey), bad}); err == nil {
		t.Error("Commit accepted an entry without an actor")
	}
	if _, err := s.AddRelease(t.Context(), storedRelease("site", 1), bad); err == nil {
		t.Error("AddRelease accepted an entry without an actor")
	}
	if err := s.Append(t.Context(), []record.Entry{anEntry("b", storeKey), bad}); err == nil {
		t.Error("Append accepted an entry without an actor")
	}
	sameInStore(t, "contents", before, contentsOf(t, s))
}

func separatesEnvironments(t *testing.T, s ServerStore) {
	keys := []engine.Key{{App: "shop", Env: "staging"}, {App: "site", Env: "a"}, {App: "shop", Env: "production"}}
	for i, k := range keys {
		mustCommit(t, s, k, 0, rollout.State{Ordered: i + 1}, anEntry("a", k))
	}
	mustAdd(t, s, storedRelease("other", 1))
	list, err := s.Environments(t.Context())
	mustStore(t, err)
	sameInStore(t, "environments", []engine.Key{keys[2], keys[0], keys[1]}, list)
	for i, k := range keys {
		state, version, err := s.State(t.Context(), k)
		mustStore(t, err)
		sameInStore(t, k.String(), i+1, state.Ordered)
		mustCommit(t, s, k, version, state)
	}
}

func sharesNothing(t *testing.T, s ServerStore) {
	state, e, rel := fullState(), anEntry("a", storeKey), storedRelease("site", 1)
	e.Data = map[string]string{"k": "v"}
	entries := []record.Entry{anEntry("first", storeKey), e}
	_, err := s.AddRelease(t.Context(), rel, e)
	mustStore(t, err)
	mustCommit(t, s, storeKey, 0, state, entries...)
	sameInStore(t, "the caller's entries", []record.Entry{anEntry("first", storeKey), e}, entries)
	sameInStore(t, "the caller's data", map[string]string{"k": "v"}, e.Data)

	before := contentsOf(t, s)
	want := slices.Clone(rel.Doc)
	state.Current.Components[0].Name, state.Instances[0].ID, state.Restarts["web"] = "x", "x", rollout.Restart{}
	e.Data["k"], entries[0].Kind, rel.Doc[0] = "x", "x", 'x'
	after := contentsOf(t, s)
	sameInStore(t, "state", before.State, after.State)
	sameInStore(t, "kind", "first", after.Entries[1].Kind)
	sameInStore(t, "data", "v", after.Entries[2].Data["k"])
	sameInStore(t, "document", string(want), string(after.Releases[0].Doc))
}

func keepsState(t *testing.T, s ServerStore) {
	mustCommit(t, s, storeKey, 0, fullState())
	state, _, err := s.State(t.Context(), storeKey)
	mustStore(t, err)
	sameInStore(t, "state", fullState(), state)
}

func fullState() rollout.State {
	target := func(n int) *rollout.Target {
		return &rollout.Target{Release: digest.FromString(fmt.Sprint(n)), Number: n, Strategy: rollout.Strategy{Kind: "blue-green"}, Listen: "127.0.0.1:8080",
			Components: []rollout.Component{{Name: "web", Spec: digest.FromString("spec"), Replicas: 2, Start: time.Second, Drain: time.Minute,
				Route: &rollout.Route{Path: "/", Hold: time.Second}}}}
	}
	order := rollout.Order{Instance: rollout.Instance{ID: "site-production-web-1", Component: "web", Release: digest.FromString("1")},
		OrderedAt: storeTime, Seen: true}
	exit := &rollout.Exit{Code: 137, Signal: "SIGKILL", At: storeTime}
	failure := &rollout.Failure{Instance: "i", What: "it ended", Exit: exit, Tail: []string{"last words", "grüße"}}
	return rollout.State{
		App: "site", Env: "production", Current: target(1), Rollouts: 2, Ordered: 3,
		Rollout: &rollout.Rollout{Number: 2, Kind: "deploy", From: target(1), To: *target(2), Step: rollout.Reverting, Actor: "root@host",
			StartedAt: storeTime, Failure: failure},
		Table: rollout.Table{Generation: 7, Listen: "127.0.0.1:8080", Services: []rollout.Service{{Name: "web", Path: "/",
			Backends: []rollout.Backend{{ID: "site-production-web-1", Address: "10.0.0.2:80", Weight: 1}}}}},
		Instances:  []rollout.Order{order},
		Restarts:   map[string]rollout.Restart{"web": {Count: 2, After: storeTime}},
		KnownGood:  []digest.Digest{digest.FromString("0"), digest.FromString("1")},
		LastResult: &rollout.Result{Number: 1, Kind: "deploy", Outcome: rollout.Live, StartedAt: storeTime, EndedAt: storeTime},
	}
}

func selectsEntries(t *testing.T, s ServerStore) {
	other := engine.Key{App: "shop", Env: "production"}
	mustStore(t, s.Append(t.Context(), []record.Entry{anEntry("0", storeKey), anEntry("1", other), anEntry("2", engine.Key{}), anEntry("3", engine.Key{App: "site"})}))
	mustCommit(t, s, other, 0, rollout.State{}, anEntry("4", storeKey), anEntry("5", other))
	for _, c := range []struct {
		key      engine.Key
		from, to int64
		want     []string
	}{
		{engine.Key{}, 0, -1, []string{"0", "1", "2", "3", "4", "5"}},
		{engine.Key{}, 2, 4, []string{"2", "3"}},
		{engine.Key{}, 4, 100, []string{"4", "5"}},
		{engine.Key{}, 6, -1, nil},
		{engine.Key{}, 4, 2, nil},
		{storeKey, 0, -1, []string{"0", "4"}},
		{storeKey, 1, 5, []string{"4"}},
		{storeKey, 1, 4, nil},
		{other, 0, -1, []string{"1", "5"}},
		{engine.Key{App: "site"}, 0, -1, []string{"3"}},
		{engine.Key{App: "nobody", Env: "x"}, 0, -1, nil},
	} {
		list, err := s.Entries(t.Context(), c.key, c.from, c.to)
		mustStore(t, err)
		var got []string
		for _, e := range list {
			got = append(got, e.Kind)
		}
		sameInStore(t, fmt.Sprintf("entries of %s from %d to %d", c.key, c.from, c.to), c.want, got)
	}
}

func rootsAgree(t *testing.T, s ServerStore) {
	var leaves [][]byte
	for i := range 9 {
		e := anEntry(fmt.Sprint(i), storeKey)
		e.Time, e.Data = e.Time.In(time.FixedZone("elsewhere", 7200)), map[string]string{"b": "2", "a": "<1>"}
		mustStore(t, s.Append(t.Context(), []record.Entry{e, e}[:1+i%2]))
	}
	all, err := s.Entries(t.Context(), engine.Key{}, 0, -1)
	mustStore(t, err)
	for _, e := range all {
		leaf, err := e.Leaf()
		mustStore(t, err)
		leaves = append(leaves, leaf)
	}
	_, want, err := record.Append(0, leaves, nil)
	mustStore(t, err)
	size, root, err := s.Head(t.Context())
	mustStore(t, err)
	sameInStore(t, "size", int64(len(leaves)), size)
	sameInStore(t, "root", want, root)
}

func oneWins(t *testing.T, s ServerStore) {
	version := mustCommit(t, s, storeKey, 0, rollout.State{})
	const n = 8
	results := make(chan error, n)
	var start sync.WaitGroup
	start.Add(1)
	for i := range n {
		go func() {
			start.Wait()
			_, err := s.Commit(t.Context(), storeKey, version, rollout.State{Ordered: i}, []record.Entry{anEntry("a", storeKey)})
			results <- err
		}()
	}
	start.Done()
	won := 0
	for range n {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, rollout.ErrStale):
			t.Error(err)
		}
	}
	sameInStore(t, "commits that won", 1, won)
	sameInStore(t, "record", []string{"a"}, entryKinds(t, s))
}
