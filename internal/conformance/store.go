package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// ServerStore is engine.Store with what a server needs besides: marking what gc
// collected, and the head of the record.
type ServerStore interface {
	engine.Store
	MarkCollected(ctx context.Context, d digest.Digest, entry record.Entry) error
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
}

// Store checks every promise of engine.Store. open gives an empty store and
// closes it when the test ends. Stores that serve one user at a time set serial.
func Store(t *testing.T, serial bool, open func(t *testing.T) ServerStore) {
	for name, test := range map[string]func(*testing.T, ServerStore){
		"an empty store has nothing":                    emptyStore,
		"releases are numbered within the application":  numbersReleases,
		"a release that is there keeps its number":      keepsNumber,
		"a document of another digest is refused":       refusesOtherDigest,
		"a collected release stays and can come back":   collects,
		"a commit replaces the state and appends":       commits,
		"a stale commit changes nothing":                refusesStale,
		"a commit without entries appends nothing":      commitsWithoutEntries,
		"a refused entry leaves the state as it is":     failsWhole,
		"environments are apart and sorted":             separatesEnvironments,
		"what is kept shares nothing with the caller":   sharesNothing,
		"a state comes back as it was":                  keepsState,
		"entries are selected by environment and place": selectsEntries,
		"the record's root is that of its entries":      rootsAgree,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	if !serial {
		t.Run("of concurrent commits on one version one wins", func(t *testing.T) { oneWins(t, open(t)) })
	}
}

// DurableStore checks that what a store acknowledged is there when it is opened
// again. open opens the store that is kept in dir; closing ends it.
func DurableStore(t *testing.T, open func(t *testing.T, dir string) (s ServerStore, closing func() error)) {
	dir := t.TempDir()
	s, closing := open(t, dir)
	rel := mustAdd(t, s, storedRelease("site", 1))
	collected := mustAdd(t, s, storedRelease("site", 2))
	mustStore(t, s.MarkCollected(t.Context(), collected.Digest, anEntry("release.collected", storeKey)))
	version := mustCommit(t, s, storeKey, 0, fullState(), anEntry("rollout.started", storeKey))
	before := contentsOf(t, s)
	mustStore(t, closing())

	s, closing = open(t, dir)
	if d := cmp.Diff(before, contentsOf(t, s)); d != "" {
		t.Errorf("after opening again (-before +after):\n%s", d)
	}
	if again := mustAdd(t, s, storedRelease("site", 1)); again.Number != rel.Number {
		t.Errorf("release %d became %d", rel.Number, again.Number)
	}
	mustCommit(t, s, storeKey, version, rollout.State{App: "site"}, anEntry("rollout.live", storeKey))
	mustStore(t, closing())
}

// storeContents is what a store can be asked.
type storeContents struct {
	Releases []engine.Stored
	State    rollout.State
	Version  int64
	Keys     []engine.Key
	Entries  []record.Entry
	Size     int64
	Root     tlog.Hash
}

func contentsOf(t *testing.T, s ServerStore) storeContents {
	t.Helper()
	var all storeContents
	var err error
	all.Releases, err = s.Releases(t.Context(), "site")
	mustStore(t, err)
	all.State, all.Version, err = s.State(t.Context(), storeKey)
	mustStore(t, err)
	all.Keys, err = s.Environments(t.Context())
	mustStore(t, err)
	all.Entries, err = s.Entries(t.Context(), engine.Key{}, 0, -1)
	mustStore(t, err)
	all.Size, all.Root, err = s.Head(t.Context())
	mustStore(t, err)
	return all
}

var (
	storeKey  = engine.Key{App: "site", Env: "production"}
	storeTime = time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC)
)

func storedRelease(app string, n int) engine.Stored {
	doc := fmt.Appendf(nil, `{"app":%q,"n":%d}`, app, n)
	return engine.Stored{App: app, Digest: digest.FromBytes(doc), Doc: doc, Created: storeTime.Add(time.Duration(n) * time.Second)}
}

func anEntry(kind string, key engine.Key) record.Entry {
	return record.Entry{Time: storeTime, Actor: "root@host", Kind: kind, App: key.App, Env: key.Env, Reason: "because of " + kind}
}

func mustAdd(t *testing.T, s ServerStore, rel engine.Stored) engine.Stored {
	t.Helper()
	out, err := s.AddRelease(t.Context(), rel, anEntry("release.added", engine.Key{App: rel.App}))
	mustStore(t, err)
	return out
}

func mustCommit(t *testing.T, s ServerStore, key engine.Key, version int64, next rollout.State, entries ...record.Entry) int64 {
	t.Helper()
	v, err := s.Commit(t.Context(), key, version, next, entries)
	mustStore(t, err)
	return v
}

func mustStore(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sameInStore(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// kinds are those of the whole record, in order; it checks that every entry has its place.
func entryKinds(t *testing.T, s ServerStore) []string {
	t.Helper()
	all, err := s.Entries(t.Context(), engine.Key{}, 0, -1)
	mustStore(t, err)
	out := []string{}
	for i, e := range all {
		if e.Index != int64(i) {
			t.Errorf("entry %d has the index %d", i, e.Index)
		}
		out = append(out, e.Kind)
	}
	return out
}

func emptyStore(t *testing.T, s ServerStore) {
	root, err := tlog.TreeHash(0, nil)
	mustStore(t, err)
	sameInStore(t, "contents", storeContents{Root: root}, contentsOf(t, s))
	if _, err := s.Release(t.Context(), digest.FromString("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Release = %v, want fs.ErrNotExist", err)
	}
	err = s.MarkCollected(t.Context(), digest.FromString("none"), anEntry("release.collected", storeKey))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("MarkCollected = %v, want fs.ErrNotExist", err)
	}
	sameInStore(t, "record", []string{}, entryKinds(t, s))
}

func numbersReleases(t *testing.T, s ServerStore) {
	for i, c := range []struct {
		app    string
		n      int
		number int
	}{{"site", 1, 1}, {"site", 2, 2}, {"shop", 1, 1}, {"site", 3, 3}, {"shop", 2, 2}} {
		want := storedRelease(c.app, c.n)
		want.Number = c.number
		sameInStore(t, "added", want, mustAdd(t, s, storedRelease(c.app, c.n)))
		found, err := s.Release(t.Context(), want.Digest)
		mustStore(t, err)
		sameInStore(t, "found", want, found)

		all, err := s.Entries(t.Context(), engine.Key{}, int64(i), -1)
		mustStore(t, err)
		e := anEntry("release.added", engine.Key{App: c.app})
		e.Index, e.Release, e.Data = int64(i), want.Digest, map[string]string{"number": fmt.Sprint(c.number)}
		sameInStore(t, "entry", []record.Entry{e}, all)
	}
	list, err := s.Releases(t.Context(), "site")
	mustStore(t, err)
	numbers := []int{}
	for _, r := range list {
		numbers = append(numbers, r.Number)
	}
	sameInStore(t, "numbers", []int{1, 2, 3}, numbers)
}

func keepsNumber(t *testing.T, s ServerStore) {
	first := mustAdd(t, s, storedRelease("site", 1))
	mustAdd(t, s, storedRelease("site", 2))
	again := storedRelease("site", 1)
	again.Created = again.Created.Add(time.Hour)
	sameInStore(t, "added again", first, mustAdd(t, s, again))
	sameInStore(t, "record", []string{"release.added", "release.added"}, entryKinds(t, s))
}

func refusesOtherDigest(t *testing.T, s ServerStore) {
	rel := storedRelease("site", 1)
	rel.Digest = digest.FromString("something else")
	if _, err := s.AddRelease(t.Context(), rel, anEntry("release.added", storeKey)); err == nil {
		t.Error("accepted")
	}
	list, err := s.Releases(t.Context(), "site")
	mustStore(t, err)
	sameInStore(t, "releases", 0, len(list))
	sameInStore(t, "record", []string{}, entryKinds(t, s))
}

func collects(t *testing.T, s ServerStore) {
	rel := mustAdd(t, s, storedRelease("site", 1))
	for range 2 { // the second time changes nothing
		mustStore(t, s.MarkCollected(t.Context(), rel.Digest, anEntry("release.collected", storeKey)))
	}
	want := rel
	want.Collected = true
	found, err := s.Release(t.Context(), rel.Digest)
	mustStore(t, err)
	sameInStore(t, "collected", want, found)
	list, err := s.Releases(t.Context(), "site")
	mustStore(t, err)
	sameInStore(t, "list", []engine.Stored{want}, list)
	sameInStore(t, "added again", rel, mustAdd(t, s, storedRelease("site", 1)))
	sameInStore(t, "record", []string{"release.added", "release.collected", "release.added"}, entryKinds(t, s))
	all, err := s.Entries(t.Context(), engine.Key{}, 1, -1)
	mustStore(t, err)
	for _, e := range all {
		sameInStore(t, "release of "+e.Kind, rel.Digest, e.Release)
	}
}

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
