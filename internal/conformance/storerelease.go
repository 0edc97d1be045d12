package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
)

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
