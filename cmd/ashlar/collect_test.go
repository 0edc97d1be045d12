package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/store"
)

const shopYAML = `app: shop
components:
  web:
    build:
      - files: {from: run, to: /srv/run, mode: "0755"}
    run: {command: [/srv/run]}
environments:
  production: {}
`

var production = engine.Key{App: "shop", Env: "production"}

// yard is a state directory with real stores, and a source to build from.
type yard struct {
	*garbage
	source string
}

// noSecrets stands for releases that name no secret.
func noSecrets(release.Spec) error { return nil }

func newYard(t testing.TB) *yard {
	t.Helper()
	dir := t.TempDir()
	objects, err := object.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "ashlar.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	g := &garbage{dir: dir, store: s, objects: objects, artifacts: newArtifacts(objects, noSecrets), log: slog.New(slog.DiscardHandler)}
	return &yard{g, t.TempDir()}
}

// build builds and stores a release whose program has the given text.
func (y *yard) build(t *testing.T, text string) (engine.Stored, release.Spec) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(y.source, "run"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(y.source, "ashlar.yaml")
	def, err := definition.Parse(file, []byte(shopYAML), nil)
	if err != nil {
		t.Fatal(err)
	}
	built, err := buildRelease(t.Context(), cli.BuildRequest{Dir: y.dir, File: file, Definition: def, Progress: func(cli.BuildEvent) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer built.Unlock()
	doc, err := built.Release.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := y.store.AddRelease(t.Context(), engine.Stored{App: "shop", Digest: digest.FromBytes(doc), Doc: doc, Created: time.Now()},
		record.Entry{Time: time.Now().UTC(), Actor: "test", Kind: "release.added", App: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return stored, built.Release.Environments["production"].Components["web"].Spec
}

// age makes every reference of the build cache 31 days old.
func (y *yard) age(t *testing.T) {
	t.Helper()
	old := time.Now().Add(-31 * 24 * time.Hour)
	err := filepath.WalkDir(filepath.Join(y.dir, "refs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (y *yard) kinds(t *testing.T) []string {
	t.Helper()
	entries, err := y.store.Entries(t.Context(), engine.Key{}, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestCollect(t *testing.T) {
	y := newYard(t)
	ctx := t.Context()
	_, gone := y.build(t, "one")
	second, live := y.build(t, "two")
	third, newest := y.build(t, "three")
	state := rollout.State{
		App: "shop", Env: "production", Current: &rollout.Target{Release: second.Digest, Number: second.Number},
		KnownGood: []digest.Digest{second.Digest},
	}
	if _, err := y.store.Commit(ctx, production, 0, state, nil); err != nil {
		t.Fatal(err)
	}
	// While the build cache has everything, no release loses anything.
	if r, err := y.collect(ctx, "test", api.GCRequest{}); err != nil || r.Removed.Objects != 0 || len(y.kinds(t)) != 3 {
		t.Fatalf("with a fresh build cache: %+v, %v, %v", r, err, y.kinds(t))
	}
	y.age(t)
	if err := y.artifacts.Check(ctx, gone); err != nil {
		t.Fatal(err)
	}

	dry, err := y.collect(ctx, "test", api.GCRequest{DryRun: true})
	if err != nil || y.artifacts.Check(ctx, gone) != nil || len(y.kinds(t)) != 3 {
		t.Fatalf("a dry run: %+v, %v", dry, err)
	}
	report, err := y.collect(ctx, "test", api.GCRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dry.Removed, report.Removed); diff != "" || report.Removed.Objects == 0 {
		t.Errorf("removed other than the dry run said (-said +removed):\n%s", diff)
	}
	want := []api.ReleaseRef{{Number: 2, Digest: second.Digest}, {Number: 3, Digest: third.Digest}}
	if diff := cmp.Diff(want, report.Releases); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	for name, spec := range map[string]release.Spec{"live": live, "newest": newest} {
		if err := newArtifacts(y.objects, noSecrets).Check(ctx, spec); err != nil {
			t.Errorf("the %s release lost something: %v", name, err)
		}
	}
	gone.Artifact = live.Artifact // so that the sealed tree is looked at
	if err := y.artifacts.Check(ctx, gone); fault.Of(err).Kind != fault.Refused {
		t.Errorf("what was collected still counts as on hand: %v", err)
	}
	if r, err := y.store.Releases(ctx, "shop"); err != nil || !r[0].Collected || r[1].Collected {
		t.Errorf("marked as collected: %+v, %v", r, err)
	}
	if diff := cmp.Diff([]string{"gc.begun", "release.collected", "gc.ended"}, y.kinds(t)[3:]); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if again, err := y.collect(ctx, "test", api.GCRequest{}); err != nil || again.Removed.Objects != 0 || len(y.kinds(t)) != 6 {
		t.Errorf("a second collection: %+v, %v, %v", again, err, y.kinds(t))
	}
	if _, back := y.build(t, "one"); newArtifacts(y.objects, noSecrets).Check(ctx, back) != nil {
		t.Error("a build does not bring a collected release back")
	}
}

func TestCollectWaitsForBuilds(t *testing.T) {
	y := newYard(t)
	unlock, err := y.objects.Share(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := y.collect(t.Context(), "test", api.GCRequest{}); fault.Of(err).Kind != fault.Conflict {
		t.Errorf("collecting while a build runs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := y.collect(ctx, "test", api.GCRequest{}); err == nil {
		t.Error("collecting went on without its context")
	}
}

// A release of which one byte is missing is not deployed (I5).
func TestCheckNamesWhatIsMissing(t *testing.T) {
	y := newYard(t)
	_, spec := y.build(t, "one")
	if err := y.artifacts.Check(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	y.artifacts.forget()
	if err := y.objects.Remove(digest.FromString("one")); err != nil {
		t.Fatal(err)
	}
	err := y.artifacts.Check(t.Context(), spec)
	if f := fault.Of(err); f.Kind != fault.Refused || f.What != "the file /srv/run ("+digest.FromString("one").String()+") is not in the object store" {
		t.Errorf("a missing file: %v", err)
	}
}
