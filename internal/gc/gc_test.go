package gc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/gc"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// world is an object store whose objects have names for people.
type world struct {
	*testing.T
	dir     string
	objects *object.Store
	names   map[digest.Digest]string
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	objects, err := object.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, dir, objects, map[digest.Digest]string{}}
}

func (w *world) put(name string, b []byte) digest.Digest {
	w.Helper()
	d, _, err := w.objects.Put(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		w.Fatal(err)
	}
	w.names[d] = name
	return d
}

// tree makes a tree of files whose contents are their names, stores and seals it.
func (w *world) tree(name string, files ...string) (image.Tree, digest.Digest) {
	w.Helper()
	t := image.Tree{Entries: []image.Entry{{Path: ".", Type: image.Dir, Mode: 0o755}}}
	slices.Sort(files)
	for _, f := range files {
		d := w.put(f, []byte(f))
		t.Entries = append(t.Entries, image.Entry{Path: f, Type: image.File, Mode: 0o644, Size: int64(len(f)), Digest: d})
	}
	s, err := seal.Put(w.objects, t)
	if err != nil {
		w.Fatal(err)
	}
	w.names[s] = name
	return t, s
}

// release makes a release of one component with two layers, the second of which
// hides nothing: "shared" and a file of its own.
func (w *world) release(name string, files ...string) release.Release {
	w.Helper()
	layer, sealed := w.tree(name+" seal", files...)
	_, settings := w.tree(name+" settings", name+".conf")
	packed := w.put(name+" layer tree", layer.Marshal())
	art, err := image.Assemble(image.Config{Architecture: "amd64", OS: "linux"}, []image.Layer{{
		Digest: digest.FromString(name + " tar, never stored"), Size: 1, Tree: packed,
	}}, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.put(name+" config", art.Config)
	manifest := w.put(name+" manifest", art.Manifest)
	conf := digest.FromString(name + ".conf")
	chapter := w.put(name+" chapter", []byte(`{"lines":[],"origins":[{"digest":"`+w.put(name+" package", []byte("the .deb of "+name)).String()+`"}]}`))
	ledger := w.put(name+" ledger", []byte(`{"chapter":"`+chapter.String()+`"}`))
	return release.Release{Schema: release.Schema, App: "shop", Environments: map[string]release.Environment{
		"production": {Platform: "local", Rollout: release.Rollout{Strategy: "blue-green"}, Components: map[string]release.Component{"web": {Ledger: ledger, Spec: release.Spec{
			Artifact: manifest, Tree: sealed, Settings: settings, Command: []string{"/web"}, WorkDir: "/", StopSignal: "SIGTERM",
			Files: []release.ConfigFile{{Path: "/" + name + ".conf", Digest: conf}},
		}}}},
	}}
}

func (w *world) source() gc.Source {
	return gc.Source{
		Objects: w.objects,
		Kinds:   map[string]time.Duration{"layer": 30 * 24 * time.Hour, "deb-input": 365 * 24 * time.Hour},
		Seal:    func(d digest.Digest) (image.Tree, error) { return seal.Read(w.objects, d) },
	}
}

// left names what is in the store.
func (w *world) left() []string {
	w.Helper()
	var names []string
	err := w.objects.Walk(func(d digest.Digest, _ int64) error { names = append(names, w.names[d]); return nil })
	if err != nil {
		w.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func (w *world) collect(now time.Time, kept ...release.Release) (gc.Plan, gc.Removed) {
	w.Helper()
	plan, err := gc.Mark(now, w.source(), kept)
	if err != nil {
		w.Fatal(err)
	}
	done, err := gc.Sweep(context.Background(), w.objects, plan)
	if err != nil {
		w.Fatal(err)
	}
	return plan, done
}

func TestExactlyTheUnneeded(t *testing.T) {
	w := newWorld(t)
	kept := w.release("kept", "shared", "kept.bin")
	w.release("gone", "shared", "gone.bin")
	w.put("stray", []byte("stray"))

	plan, done := w.collect(time.Now(), kept)
	want := []string{"kept chapter", "kept config", "kept layer tree", "kept ledger", "kept manifest", "kept package", "kept seal", "kept settings", "kept.bin", "kept.conf", "shared"}
	if diff := cmp.Diff(want, w.left()); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if plan.Kept != len(want) || done.Objects != 11 || done.Bytes != plan.RemoveB {
		t.Errorf("kept %d, removed %+v of %d bytes", plan.Kept, done, plan.RemoveB)
	}
	// What is left is all that a rollback needs (I5).
	spec := kept.Environments["production"].Components["web"].Spec
	for _, d := range []digest.Digest{spec.Tree, spec.Settings} {
		if _, err := seal.Verify(context.Background(), w.objects, d); err != nil {
			t.Error(err)
		}
	}
}

func TestBuildCache(t *testing.T) {
	w := newWorld(t)
	layer, _ := w.tree("unreferenced seal", "cached.bin")
	packed := w.put("cached tree", layer.Marshal())
	desc, err := json.Marshal(map[string]any{"annotations": map[string]string{image.TreeAnnotation: packed.String()}})
	if err != nil {
		t.Fatal(err)
	}
	d := w.put("descriptor", desc)
	deb := w.put("a.deb", []byte("a.deb"))
	lost := digest.FromString("was removed by hand")
	w.ref("layer", packed.Encoded(), d)
	w.ref("deb-input", deb.Encoded(), deb)
	w.ref("layer", "lost", lost)

	plan, _ := w.collect(time.Now())
	if diff := cmp.Diff([]gc.Ref{{Kind: "layer", Name: "lost"}}, plan.Refs); diff != "" {
		t.Errorf("references removed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a.deb", "cached tree", "cached.bin", "descriptor"}, w.left()); diff != "" {
		t.Errorf("after a fresh build (-want +got):\n%s", diff)
	}
	w.collect(time.Now().Add(31 * 24 * time.Hour))
	if diff := cmp.Diff([]string{"a.deb"}, w.left()); diff != "" {
		t.Errorf("after 31 days (-want +got):\n%s", diff)
	}
	w.collect(time.Now().Add(366 * 24 * time.Hour))
	if left := w.left(); len(left) > 0 {
		t.Errorf("after a year %v are left", left)
	}
}

func (w *world) ref(kind, name string, d digest.Digest) {
	w.Helper()
	if err := w.objects.SetRef(kind, name, d); err != nil {
		w.Fatal(err)
	}
}

// A kept release that cannot be read stops the collection before anything goes.
func TestDamageStopsMarking(t *testing.T) {
	for name, damage := range map[string]func(w *world, s release.Spec) error{
		"seal missing":     func(w *world, s release.Spec) error { return w.objects.Remove(s.Tree) },
		"manifest missing": func(w *world, s release.Spec) error { return w.objects.Remove(s.Artifact) },
		"seal damaged": func(w *world, s release.Spec) error {
			path, err := w.objects.File(s.Tree)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte("garbage"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			kept := w.release("kept", "a")
			if err := damage(w, kept.Environments["production"].Components["web"].Spec); err != nil {
				t.Fatal(err)
			}
			if _, err := gc.Mark(time.Now(), w.source(), []release.Release{kept}); err == nil {
				t.Error("Mark went on")
			}
		})
	}
}

func TestKeep(t *testing.T) {
	d := func(n string) digest.Digest { return digest.FromString(n) }
	target := func(n string) *rollout.Target { return &rollout.Target{Release: d(n)} }
	var all []gc.Release
	for i, n := range strings.Fields("r1 r2 r3 r4 r5 r6 r7 r8 r9") {
		all = append(all, gc.Release{App: "shop", Number: i + 1, Digest: d(n)})
	}
	all = append(all, gc.Release{App: "other", Number: 1, Digest: d("o1")}, gc.Release{App: "other", Number: 2, Digest: d("o2")})
	good := []digest.Digest{d("r1"), d("r2"), d("r3"), d("r4")}
	got := gc.Keep(all, []gc.Environment{
		{Keep: 2, State: rollout.State{
			Current: target("r4"), KnownGood: good,
			Rollout: &rollout.Rollout{From: target("r4"), To: *target("r6")},
		}},
		{Keep: 1, State: rollout.State{
			Current: target("r7"), KnownGood: []digest.Digest{d("r2"), d("r7")},
			Instances: []rollout.Order{{Instance: rollout.Instance{Release: d("r5")}}},
		}},
	})
	var names []string
	for _, r := range got {
		names = append(names, r.App+"/"+string(rune('0'+r.Number)))
	}
	want := []string{"shop/2", "shop/3", "shop/4", "shop/5", "shop/6", "shop/7", "shop/9", "other/2"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if got := gc.Keep(all[:1], []gc.Environment{{Keep: 5, State: rollout.State{KnownGood: good}}}); len(got) != 1 {
		t.Errorf("with fewer known-good releases than are kept: %v", got)
	}
}

// A sweep that ends early leaves a store that the next one finishes.
func TestSweepIsCutShort(t *testing.T) {
	w := newWorld(t)
	kept := w.release("kept", "a")
	w.release("gone", "b")
	plan, err := gc.Mark(time.Now(), w.source(), []release.Release{kept})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := gc.Sweep(ctx, w.objects, plan); err == nil {
		t.Error("a sweep went on after its context had ended")
	}
	if err := w.objects.Remove(plan.Remove[0].Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := gc.Sweep(context.Background(), w.objects, plan); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "objects")); err != nil || slices.Contains(w.left(), "b") {
		t.Errorf("left: %v, %v", w.left(), err)
	}
}

// Statements stay while what they are about does, however old they are.
func TestStatements(t *testing.T) {
	w := newWorld(t)
	kept, gone := w.release("kept", "a"), w.release("gone", "b")
	doc, err := kept.Digest()
	if err != nil {
		t.Fatal(err)
	}
	about := map[string]digest.Digest{}
	refer := func(name string, subject digest.Digest) digest.Digest {
		bundle := w.put(name, []byte(name))
		raw, err := json.Marshal(map[string]any{"subject": map[string]any{"digest": subject}, "layers": []any{map[string]any{"digest": bundle}}})
		if err != nil {
			t.Fatal(err)
		}
		d := w.put(name+" manifest", raw)
		w.ref("referrer", name, d)
		about[name] = subject
		return d
	}
	refer("of the release", doc)
	refer("of what goes", gone.Environments["production"].Components["web"].Spec.Artifact)
	first := refer("of the artifact", kept.Environments["production"].Components["web"].Spec.Artifact)
	refer("about a statement", first)
	source := w.source()
	source.Kinds["referrer"] = 24 * time.Hour
	source.About = func(kind, name string) digest.Digest { return about[name] }
	plan, err := gc.Mark(time.Now().Add(25*time.Hour), source, []release.Release{kept})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]gc.Ref{{Kind: "referrer", Name: "of what goes"}}, plan.Refs); diff != "" {
		t.Errorf("references removed (-want +got):\n%s", diff)
	}
	if _, err := gc.Sweep(context.Background(), w.objects, plan); err != nil {
		t.Fatal(err)
	}
	left := w.left()
	for name, want := range map[string]bool{"of the release": true, "of the artifact": true, "about a statement": true, "of what goes": false, "gone manifest": false} {
		if slices.Contains(left, name) != want {
			t.Errorf("%q is there: %t, want %t", name, !want, want)
		}
	}
}

// What strangers pushed stays as it is: it is not looked into, where it could stop the
// collection or keep what it names, and it hides nothing of a kept release.
func TestPins(t *testing.T) {
	w := newWorld(t)
	kept := w.release("kept", "kept.bin")
	sealed := kept.Environments["production"].Components["web"].Spec.Tree
	stray := w.put("stray", []byte("stray"))
	source := w.source()
	source.Pins = []digest.Digest{
		sealed, w.put("half a tree", []byte("ashlar tree 1\n\xff")), w.put("half a seal", append(make([]byte, 1024), 0xE2, 0xE1, 0xF5, 0xE0)),
		w.put("names a stray", []byte(`{"stray":"`+stray.String()+`"}`)),
	}
	w.ref("oci-tags-x", "t", stray)
	source.Gone = []gc.Ref{{Kind: "oci-tags-x", Name: "t"}}
	plan, err := gc.Mark(time.Now(), source, []release.Release{kept})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gc.Sweep(context.Background(), w.objects, plan); err != nil {
		t.Fatal(err)
	}
	left := w.left()
	for name, stays := range map[string]bool{"half a seal": true, "half a tree": true, "names a stray": true, "kept seal": true, "kept.bin": true, "stray": false} {
		if slices.Contains(left, name) != stays {
			t.Errorf("%q stays: %v, want %v", name, !stays, stays)
		}
	}
	if refs, err := w.objects.Refs("oci-tags-x"); err != nil || len(refs) != 0 {
		t.Errorf("the reference stays: %v, %v", refs, err)
	}
}

// What a stranger's statement names, whatever its bytes look like, does not stop the
// collection.
func TestStrangeStatements(t *testing.T) {
	w := newWorld(t)
	kept := w.release("kept", "kept.bin")
	artifact := kept.Environments["production"].Components["web"].Spec.Artifact
	half := w.put("half a tree", []byte("ashlar tree 1\n\xff"))
	seal := w.put("half a seal", append(make([]byte, 1024), 0xE2, 0xE1, 0xF5, 0xE0))
	statement := w.put("statement", []byte(`["`+half.String()+`","`+seal.String()+`"]`))
	w.ref("referrer", "x", statement)
	for _, fresh := range []time.Duration{time.Hour, 0} {
		source := w.source()
		source.Kinds = map[string]time.Duration{"referrer": fresh}
		source.About = func(string, string) digest.Digest { return artifact }
		plan, err := gc.Mark(time.Now().Add(time.Minute), source, []release.Release{kept})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range plan.Remove {
			if o.Digest == statement || o.Digest == half || o.Digest == seal {
				t.Errorf("%s goes", w.names[o.Digest])
			}
		}
	}
}

// What a release was judged by stays as long as the release does, or for a while; what it
// names does not stay for it.
func TestFacts(t *testing.T) {
	w := newWorld(t)
	kept := w.release("kept", "a")
	about, err := kept.Digest()
	if err != nil {
		t.Fatal(err)
	}
	database := w.put("database", []byte("of vulnerabilities"))
	judged, gone := w.put("facts", []byte(`{"database":"`+database.String()+`"}`)), w.put("facts of another", []byte(`{"database":""}`))
	other := digest.FromString("another release")
	w.ref("facts", about.Encoded()+"-"+judged.Encoded(), judged)
	w.ref("facts", other.Encoded()+"-"+gone.Encoded(), gone)
	w.ref("facts", about.Encoded()+"-"+other.Encoded(), other) // leads nowhere
	source := w.source()
	source.Kinds["facts"], source.Closed = time.Hour, []string{"facts"}
	source.About = func(_, name string) digest.Digest {
		first, _, _ := strings.Cut(name, "-")
		return digest.NewDigestFromEncoded(digest.SHA256, first)
	}
	for _, c := range []struct {
		at   time.Time
		want []string
	}{{time.Now(), []string{"facts", "facts of another"}}, {time.Now().Add(2 * time.Hour), []string{"facts"}}} {
		plan, err := gc.Mark(c.at, source, []release.Release{kept})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gc.Sweep(t.Context(), w.objects, plan); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, name := range w.left() {
			if !strings.HasPrefix(name, "kept") && name != "a" {
				left = append(left, name)
			}
		}
		if diff := cmp.Diff(c.want, left); diff != "" {
			t.Errorf("what is left beside the release (-want +got):\n%s", diff)
		}
	}
}
