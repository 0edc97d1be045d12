package registry

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// bundles names the statements about something.
func (w *world) bundles(about digest.Digest) []digest.Digest {
	w.Helper()
	all, err := Statements(w.objects, about)
	if err != nil {
		w.Fatal(err)
	}
	var out []digest.Digest
	for _, r := range all {
		out = append(out, r.Bundle)
	}
	return out
}

// refer pushes a bundle as a referrer of a subject, and gives the manifest's digest.
func (w *world) refer(repository string, subject ocispec.Descriptor, bundle string) digest.Digest {
	w.Helper()
	manifest := w.manifest(repository, bundle, func(m *ocispec.Manifest) {
		m.ArtifactType, m.Layers[0].MediaType, m.Subject = bundleType, bundleType, &subject
	})
	return w.put(repository, digest.FromString(manifest).String(), manifest)
}

// Statements are found by what they are about, whichever way they came: attached here,
// pushed to the artifact's repository or to another, pulled. What is pushed about something
// else is not, nor what is no statement; what is deleted is gone.
func TestStatementsAreFound(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	w := newWorld(t)
	artifact, _, _ := w.build("a file")
	other, _, _ := w.build("another file")
	w.built["demo/web"] = map[string]digest.Digest{"1": artifact}
	raw, err := w.objects.ReadAll(artifact, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: artifact, Size: int64(len(raw))}
	own, pushed, elsewhere := bundle(t, artifact), string(bundle(t, artifact)), string(bundle(t, artifact))
	if _, err := referrer.Attach(w.objects, artifact, own); err != nil {
		t.Fatal(err)
	}
	manifest := w.refer("demo/web", subject, pushed)
	w.refer("lab/results", subject, elsewhere)
	w.refer("lab/results", subject, string(own)) // as somebody's mirror has it
	notes := w.manifest("demo/web", "no statement", func(m *ocispec.Manifest) { m.ArtifactType, m.Subject = "text/plain", &subject })
	w.put("demo/web", digest.FromString(notes).String(), notes)
	want := []digest.Digest{digest.FromBytes(own), digest.FromString(pushed), digest.FromString(elsewhere)}
	got := w.bundles(artifact)
	if len(got) != 3 || got[0] != want[0] || !slices.Contains(got, want[1]) || !slices.Contains(got, want[2]) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := w.bundles(other); len(got) > 0 {
		t.Errorf("about another: %v", got)
	}

	// They go on to whoever pulls the image, and are found there too.
	away := newWorld(t)
	f, err := Fetch(t.Context(), away.objects, w.host()+"/demo/web:1", "amd64", false, quiet)
	if err == nil {
		err = FetchStatements(t.Context(), away.objects, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := away.bundles(artifact); len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
		t.Errorf("pulled: %v, want %v", got, want[:2])
	}
	third := newWorld(t)
	if out, err := Push(t.Context(), w.objects, artifact, third.host()+"/web:1", quiet); err != nil || out.Statements != 3 {
		t.Errorf("pushed on: %+v, %v", out, err)
	}

	// They outlive the collection of garbage as long as the artifact is there.
	kept, err := Keep(w.objects, time.Now().Add(48*time.Hour))
	if err != nil || !slices.Contains(kept.Objects, want[1]) {
		t.Errorf("two days later the statement goes (%v)", err)
	}
	w.want(http.StatusAccepted, "DELETE", "/v2/demo/web/manifests/"+manifest.String(), "")
	if got := w.bundles(artifact); len(got) != 2 || slices.Contains(got, want[1]) {
		t.Errorf("after it was deleted: %v", got)
	}
}
