package referrer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

type world struct {
	*testing.T
	dir   string
	store *object.Store
	key   *ecdsa.PrivateKey
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	store, err := object.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() }) //nolint:errcheck // the directory goes anyway
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, dir, store, key}
}

func (w *world) put(content []byte) digest.Digest {
	w.Helper()
	d, err := w.store.PutBytes(content)
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// manifest stores an image's manifest.
func (w *world) manifest(arch string) digest.Digest {
	w.Helper()
	a, err := image.Assemble(image.Config{Architecture: arch, OS: "linux"}, nil, nil)
	if err != nil {
		w.Fatal(err)
	}
	return w.put(a.Manifest)
}

func (w *world) bundle(kind string, about digest.Digest) []byte {
	w.Helper()
	k, _ := trust.KindOf(kind)
	s, err := trust.NewStatement(k, "", about, nil)
	if err != nil {
		w.Fatal(err)
	}
	b, err := trust.Sign(s, w.key, rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	text, err := b.Marshal()
	if err != nil {
		w.Fatal(err)
	}
	return text
}

// What is attached is what a registry serves and cosign looks for.
func TestAttached(t *testing.T) {
	w := newWorld(t)
	about, other := w.manifest("amd64"), w.manifest("arm64")
	sig, prov := w.bundle("signature", about), w.bundle("provenance", about)
	if _, err := Attach(w.store, about, sig, prov, sig); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(w.store, other, w.bundle("signature", other)); err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewPublicKey(w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Of(w.store, about)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d referrers, %v; want 2", len(got), err)
	}
	for _, r := range got {
		raw, err := w.store.ReadAll(r.Manifest, image.ManifestLimit)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		text, err := w.store.ReadAll(r.Bundle, trust.MaxBundle)
		if err != nil {
			t.Fatal(err)
		}
		size, err := w.store.ReadAll(about, image.ManifestLimit)
		if err != nil {
			t.Fatal(err)
		}
		const empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
		want := map[string]any{
			"schemaVersion": 2.0, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
			"config":      map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2.0},
			"layers":      []any{map[string]any{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "digest": r.Bundle.String(), "size": float64(len(text))}},
			"subject":     map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": about.String(), "size": float64(len(size))},
			"annotations": map[string]any{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": r.PredicateType, "dev.ashlar.key": string(key.ID())},
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("a referrer (-want +got):\n%s", diff)
		}
		if !w.store.Has(empty) {
			t.Error("the empty configuration is not stored")
		}
	}
	all, err := Of(w.store, about)
	if err != nil {
		t.Fatal(err)
	}
	if bundles := Bundles(w.store, all, "https://slsa.dev/provenance/v1"); len(bundles) != 1 || string(bundles[0]) != string(prov) {
		t.Errorf("the provenance: %d bundles", len(bundles))
	}
	if bundles := Bundles(w.store, all, ""); len(bundles) != 2 {
		t.Errorf("all: %d bundles", len(bundles))
	}
}

// A release's document is a subject too.
func TestAboutRelease(t *testing.T) {
	w := newWorld(t)
	doc := w.put([]byte(`{"app":"shop","environments":{},"schema":"ashlar.dev/release/v1"}`))
	if _, err := Attach(w.store, doc, w.bundle("approval", doc)); err != nil {
		t.Fatal(err)
	}
	got, err := Of(w.store, doc)
	if err != nil || len(got) != 1 || !strings.Contains(got[0].PredicateType, "approval") {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	about, other := w.manifest("amd64"), w.manifest("arm64")
	absent := digest.FromString("nowhere")
	for name, c := range map[string]struct {
		about  digest.Digest
		bundle []byte
		kind   fault.Kind
	}{
		"about another":        {other, w.bundle("signature", about), fault.Invalid},
		"no bundle":            {about, []byte(`{"mediaType": "x"}`), fault.Invalid},
		"about what is absent": {absent, w.bundle("signature", absent), fault.NotFound},
	} {
		if _, err := Attach(w.store, c.about, c.bundle); err == nil || fault.Of(err).Kind != c.kind {
			t.Errorf("%s: %v, want %s", name, err, c.kind)
		}
		t.Attr("refused", "not attached <- "+name)
	}
	refs, err := w.store.Refs(Kind)
	if err != nil || len(refs) > 0 {
		t.Errorf("refused and there: %v, %v", refs, err)
	}
}

// What is damaged, gone or about something else says nothing, and hides nothing.
func TestDamaged(t *testing.T) {
	w := newWorld(t)
	about, other := w.manifest("amd64"), w.manifest("arm64")
	made, err := Attach(w.store, about, w.bundle("signature", about), w.bundle("provenance", about), w.bundle("spdx", about))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Attach(w.store, other, w.bundle("signature", other))
	if err != nil {
		t.Fatal(err)
	}
	path, err := w.store.File(made[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Remove(made[1]); err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetRef(Kind, Name(about, foreign[0]), foreign[0]); err != nil {
		t.Fatal(err)
	}
	got, err := Of(w.store, about)
	if err != nil || len(got) != 1 || got[0].Manifest != made[2] {
		t.Errorf("%v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	if got := Subject(Name(a, b)); got != a {
		t.Errorf("the subject of its name is %q", got)
	}
	for _, name := range []string{"", "x", a.Encoded(), a.Encoded() + "-", "-" + a.Encoded(), a.Encoded() + "-" + b.Encoded() + "-", filepath.Base(Name(a, b))[1:]} {
		if got := Subject(name); got != "" {
			t.Errorf("%q is about %q", name, got)
		}
	}
}
