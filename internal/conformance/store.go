package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
