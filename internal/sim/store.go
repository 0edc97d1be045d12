package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var _ engine.Store = (*Store)(nil)

// Store is engine.Store in memory: deterministic, without goroutines or locks,
// for one user at a time. What it gives out must not be written to. It passes the
// conformance suite that the real store passes.
type Store struct {
	releases []engine.Stored // in the order in which they were added
	states   map[engine.Key]stored
	entries  []record.Entry
	sparing  bool // only some states go through JSON, as that is most of a run's time otherwise
}

// stored is one environment's state as JSON, so that it shares nothing with what
// was given and goes through the same encoding as on disk; or, in a store that is
// sparing, as it was given.
type stored struct {
	version int64
	state   []byte
	value   *rollout.State // in place of state
}

// recodedEvery is how many of a sparing store's states go through JSON.
const recodedEvery = 16

// recode takes every state through JSON, as a server does that starts.
func (s *Store) recode() error {
	for key, kept := range s.states {
		if kept.value == nil {
			continue
		}
		state, err := json.Marshal(kept.value)
		if err != nil {
			return err
		}
		s.states[key] = stored{version: kept.version, state: state}
	}
	return nil
}

// NewStore gives an empty store.
func NewStore() *Store { return &Store{states: map[engine.Key]stored{}} }

// Clone gives a store with the same contents that goes its own way from here.
func (s *Store) Clone() *Store {
	return &Store{releases: slices.Clone(s.releases), states: maps.Clone(s.states), entries: slices.Clone(s.entries)}
}

// AddRelease is engine.Store.AddRelease.
func (s *Store) AddRelease(ctx context.Context, rel engine.Stored, entry record.Entry) (engine.Stored, error) {
	if got := digest.FromBytes(rel.Doc); got != rel.Digest {
		return engine.Stored{}, fmt.Errorf("release %s: its document has the digest %s", rel.Digest, got)
	}
	at := s.find(rel.Digest)
	switch {
	case at >= 0 && !s.releases[at].Collected:
		return s.releases[at], nil
	case at >= 0:
		rel = s.releases[at]
		rel.Collected = false
	default:
		rel.Number, rel.Collected = 1, false
		for _, r := range s.releases {
			if r.App == rel.App {
				rel.Number = max(rel.Number, r.Number+1)
			}
		}
		rel.Created, rel.Doc = rel.Created.UTC().Round(0), slices.Clone(rel.Doc)
	}
	entry.Release, entry.Data = rel.Digest, maps.Clone(entry.Data)
	if entry.Data == nil {
		entry.Data = map[string]string{}
	}
	entry.Data["number"] = strconv.Itoa(rel.Number)
	if err := s.Append(ctx, []record.Entry{entry}); err != nil {
		return engine.Stored{}, err
	}
	if at < 0 {
		s.releases = append(s.releases, rel)
	} else {
		s.releases[at] = rel
	}
	return rel, nil
}

// MarkCollected says that the release's objects are gone, as the real store does.
func (s *Store) MarkCollected(ctx context.Context, d digest.Digest, entry record.Entry) error {
	at := s.find(d)
	if at < 0 {
		return fmt.Errorf("release %s: %w", d, fs.ErrNotExist)
	}
	if s.releases[at].Collected {
		return nil
	}
	entry.Release = d
	if err := s.Append(ctx, []record.Entry{entry}); err != nil {
		return err
	}
	s.releases[at].Collected = true
	return nil
}

// Release is engine.Store.Release.
func (s *Store) Release(_ context.Context, d digest.Digest) (engine.Stored, error) {
	at := s.find(d)
	if at < 0 {
		return engine.Stored{}, fmt.Errorf("release %s: %w", d, fs.ErrNotExist)
	}
	return s.releases[at], nil
}

// Releases is engine.Store.Releases.
func (s *Store) Releases(_ context.Context, app string) ([]engine.Stored, error) {
	var out []engine.Stored
	for _, r := range s.releases {
		if r.App == app {
			out = append(out, r)
		}
	}
	return out, nil
}

func (s *Store) find(d digest.Digest) int {
	return slices.IndexFunc(s.releases, func(r engine.Stored) bool { return r.Digest == d })
}

// Environments is engine.Store.Environments.
func (s *Store) Environments(context.Context) ([]engine.Key, error) {
	return slices.SortedFunc(maps.Keys(s.states), func(a, b engine.Key) int {
		if c := strings.Compare(a.App, b.App); c != 0 {
			return c
		}
		return strings.Compare(a.Env, b.Env)
	}), nil
}

// State is engine.Store.State.
func (s *Store) State(_ context.Context, env engine.Key) (rollout.State, int64, error) {
	var state rollout.State
	kept, ok := s.states[env]
	if !ok {
		return state, 0, nil
	}
	if kept.value != nil {
		return *kept.value, kept.version, nil
	}
	err := json.Unmarshal(kept.state, &state)
	if s.sparing && err == nil {
		s.states[env] = stored{version: kept.version, value: &state}
	}
	return state, kept.version, err
}

// peek is State without an error: a state that cannot be read is none.
func (s *Store) peek(env engine.Key) rollout.State {
	state, _, err := s.State(context.Background(), env)
	if err != nil {
		return rollout.State{}
	}
	return state
}

// Commit is engine.Store.Commit.
func (s *Store) Commit(ctx context.Context, env engine.Key, version int64, next rollout.State, entries []record.Entry) (int64, error) {
	if s.states[env].version != version {
		return 0, fmt.Errorf("environment %s: %w", env, rollout.ErrStale)
	}
	kept := stored{version: version + 1, value: &next}
	if !s.sparing || kept.version%recodedEvery == 0 {
		state, err := json.Marshal(next)
		if err != nil {
			return 0, err
		}
		kept.state, kept.value = state, nil
	}
	if err := s.Append(ctx, entries); err != nil {
		return 0, err
	}
	s.states[env] = kept
	return kept.version, nil
}

// Append is engine.Store.Append.
func (s *Store) Append(_ context.Context, entries []record.Entry) error {
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return err
		}
	}
	for _, e := range entries {
		e.Index = int64(len(s.entries))
		e.Time = e.Time.UTC().Round(0)
		e.Data = maps.Clone(e.Data)
		s.entries = append(s.entries, e)
	}
	return nil
}

// Entries is engine.Store.Entries.
func (s *Store) Entries(_ context.Context, env engine.Key, from, to int64) ([]record.Entry, error) {
	if to < 0 || to > int64(len(s.entries)) {
		to = int64(len(s.entries))
	}
	from = max(from, 0)
	if from >= to {
		return nil, nil
	}
	if env == (engine.Key{}) {
		return slices.Clone(s.entries[from:to]), nil
	}
	var out []record.Entry
	for _, e := range s.entries[from:to] {
		if e.App == env.App && e.Env == env.Env {
			out = append(out, e)
		}
	}
	return out, nil
}

// Head gives the number of entries and the root of the Merkle tree over them. It
// hashes them all: nothing else here needs hashes.
func (s *Store) Head(context.Context) (int64, tlog.Hash, error) {
	leaves := make([][]byte, len(s.entries))
	for i, e := range s.entries {
		leaf, err := e.Leaf()
		if err != nil {
			return 0, tlog.Hash{}, err
		}
		leaves[i] = leaf
	}
	_, root, err := record.Append(0, leaves, nil)
	return int64(len(leaves)), root, err
}
