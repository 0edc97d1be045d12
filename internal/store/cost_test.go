package store

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// A deploy as it is committed: one release of a few kilobytes, then a commit for
// every decision, each with the whole state and on average two entries.
const (
	commitsOfDeploy = 15
	entriesOfCommit = 2
)

// deploy commits a whole deploy, the way an engine does, and gives how long each
// commit took.
func deploy(t testing.TB, s *Store, n int, state *rollout.State, version int64) (int64, []time.Duration) {
	t.Helper()
	doc := []byte(strings.Repeat(fmt.Sprintf(`{"n":%d,"artifact":%q,"tree":%q}`, n, digest.FromString(fmt.Sprint(n)), digest.FromString(fmt.Sprint(-n))), 20))
	rel := engine.Stored{App: "site", Doc: doc, Digest: digest.FromBytes(doc), Created: time.Unix(1e9, 0)}
	if _, err := s.AddRelease(t.Context(), rel, fact("release.added")); err != nil {
		t.Fatal(err)
	}
	target := rollout.Target{Release: rel.Digest, Number: n, Strategy: rollout.Strategy{Kind: "blue-green"}, Listen: "127.0.0.1:8080"}
	for i, name := range []string{"api", "web", "worker"} {
		target.Components = append(target.Components, rollout.Component{Name: name, Spec: digest.FromString(fmt.Sprint(n, i)), Replicas: 2,
			Start: 30 * time.Second, Drain: 10 * time.Second, Grace: 10 * time.Second, Route: &rollout.Route{Path: "/" + name, Hold: 5 * time.Second}})
	}
	from := state.Current
	var took []time.Duration
	for i := range commitsOfDeploy {
		now := time.Unix(1e9+int64(n*100+i), 123456789).UTC()
		state.Rollout = &rollout.Rollout{Number: n, Kind: "deploy", From: from, To: target, Step: rollout.Laying, Actor: "root@host", StartedAt: now}
		state.Table = rollout.Table{Generation: int64(n*100 + i), Listen: "127.0.0.1:8080"}
		state.Instances = state.Instances[:min(6, len(state.Instances))]
		for c, component := range target.Components {
			id := fmt.Sprintf("site-production-%s-%d-%d", component.Name, n, i)
			state.Instances = append(state.Instances, rollout.Order{Instance: rollout.Instance{ID: id, Component: component.Name,
				Release: rel.Digest, Spec: component.Spec}, OrderedAt: now, Seen: true})
			state.Table.Services = append(state.Table.Services, rollout.Service{Name: component.Name, Path: "/" + component.Name,
				Backends: []rollout.Backend{{ID: id, Address: fmt.Sprintf("10.88.0.%d:8080", c), Weight: 1}}})
		}
		var entries []record.Entry
		for range entriesOfCommit {
			e := fact("instance.ready")
			e.Release, e.Rollout, e.Instance, e.Reason = rel.Digest, n, "site-production-web-7", "it answered its health check 1 time in a row"
			entries = append(entries, e)
		}
		began := time.Now()
		var err error
		if version, err = s.Commit(t.Context(), production, version, *state, entries); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	state.Current, state.Rollout = &target, nil
	state.KnownGood = append(state.KnownGood, rel.Digest)
	return version, took
}

// writeBytes is what this process caused to be written to disks so far.
func writeBytes(t testing.TB) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var n int64
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("/proc/self/io does not tell write_bytes")
	return 0
}

// A deploy writes far less than the change that it deploys may: the log of the
// database, its checkpoints and the database itself, over many deploys.
func TestBytesWritten(t *testing.T) {
	const deploys, limit = 20, 250 << 10
	s := open(t, t.TempDir())
	var state rollout.State
	var version int64
	var took []time.Duration
	for n := range 3 {
		version, _ = deploy(t, s, n+1, &state, version)
	}
	before := writeBytes(t)
	for n := range deploys {
		var each []time.Duration
		version, each = deploy(t, s, n+4, &state, version)
		took = append(took, each...)
	}
	each := (writeBytes(t) - before) / deploys
	raw, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	t.Logf("a deploy writes %d KiB; state of %d bytes JSON; commit: median %s, 90 %% %s, 99 %% %s", each>>10, len(raw),
		took[len(took)/2], took[len(took)*9/10], took[len(took)*99/100])
	if each > limit {
		t.Errorf("a deploy of %d commits writes %d bytes, more than %d", commitsOfDeploy, each, limit)
	}
}

func BenchmarkCommit(b *testing.B) {
	s := open(b, b.TempDir())
	var state rollout.State
	version, _ := deploy(b, s, 1, &state, 0)
	entries := []record.Entry{fact("a"), fact("b")}
	for b.Loop() {
		var err error
		if version, err = s.Commit(b.Context(), production, version, state, entries); err != nil {
			b.Fatal(err)
		}
	}
}
