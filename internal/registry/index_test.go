package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// index builds two artifacts and stores the index that names them, each with a statement.
func (w *world) index() (index digest.Digest, images []digest.Digest) {
	w.Helper()
	var platforms []image.Platform
	for _, arch := range []string{"amd64", "arm64"} {
		d, _, _ := w.build("for both", "for "+arch)
		platforms = append(platforms, image.Platform{Architecture: arch, Manifest: d, Size: sizeOf(w.objects, d)})
		images = append(images, d)
	}
	raw, err := image.AssembleIndex(platforms)
	if err != nil {
		w.Fatal(err)
	}
	if index, err = w.objects.PutBytes(raw); err != nil {
		w.Fatal(err)
	}
	for _, d := range append(images, index) {
		if _, err := referrer.Attach(w.objects, d, bundle(w.T, d)); err != nil {
			w.Fatal(err)
		}
	}
	return index, images
}

// TestIndexThereAndBack: an index goes to another registry with all its images and what
// is said about each of them; it comes back whole, or with one image.
func TestIndexThereAndBack(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	home, other := newWorld(t), newWorld(t)
	index, images := home.index()
	to := other.host() + "/team/web:7"
	out, err := Push(t.Context(), home.objects, index, to, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if out.Manifest != index || out.Images != 2 || out.Statements != 3 || out.Bytes == 0 {
		t.Errorf("%+v", out)
	}
	raw, err := home.objects.ReadAll(index, maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	served := func(at *world, repository string) {
		t.Helper()
		got := at.want(http.StatusOK, "GET", "/v2/"+repository+"/manifests/7", "")
		if got.body != string(raw) || got.header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
			t.Errorf("%s serves as %s\n%s", repository, got.header.Get("Content-Type"), got.body)
		}
		for _, d := range append(images, index) {
			at.want(http.StatusOK, "GET", "/v2/"+repository+"/manifests/"+d.String(), "")
			if got := at.want(http.StatusOK, "GET", "/v2/"+repository+"/referrers/"+d.String(), ""); strings.Count(got.body, bundleType) != 1 {
				t.Errorf("%s: what refers to %s: %s", repository, d, got.body)
			}
		}
	}
	served(other, "team/web")
	if again, err := Push(t.Context(), home.objects, index, to, quiet); err != nil || again.Bytes != 0 {
		t.Errorf("the second time %d bytes are sent (%v)", again.Bytes, err)
	}

	fetch := func(into *world, arch string) Fetched {
		t.Helper()
		f, err := Fetch(t.Context(), into.objects, to, arch, false, quiet)
		if err == nil {
			err = FetchStatements(t.Context(), into.objects, &f)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	whole, one := newWorld(t), newWorld(t)
	f := fetch(whole, "")
	if f.Named != index || f.Manifest != index || len(f.Images) != 2 || len(f.Layers) != 2 || f.Statements != 3 {
		t.Errorf("all: %+v", f)
	}
	served(whole, f.Repository)
	if out, err := Push(t.Context(), whole.objects, index, other.host()+"/again:7", quiet); err != nil || out.Images != 2 || out.Statements != 3 {
		t.Errorf("pushed on: %+v, %v", out, err)
	}
	served(other, "again")

	if f := fetch(one, "arm64"); f.Named != index || f.Manifest != images[1] || len(f.Images) != 1 || len(f.Layers) != 1 || f.Statements != 2 {
		t.Errorf("one: %+v", f)
	}
	_, err = Push(t.Context(), one.objects, index, other.host()+"/half:7", quiet)
	if err == nil || fault.Of(err).Kind != fault.NotFound || !strings.Contains(err.Error(), "linux/amd64") || !strings.Contains(fault.Of(err).Fix, "--all") {
		t.Errorf("an index without its images is pushed: %v", err)
	}
	other.want(http.StatusNotFound, "GET", "/v2/half/manifests/7", "")
}

// TestHostileIndex: an index of indexes, of too many images or of what is no image is not
// fetched, and leaves nothing.
func TestHostileIndex(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	manifests := map[string]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ref, _ := strings.Cut(r.URL.Path, "/manifests/")
		raw, ok := manifests[ref]
		ok = ok || r.URL.Path == "/v2/"
		if !ok {
			http.NotFound(w, r)
			return
		}
		var kind struct{ MediaType string }
		_ = json.Unmarshal([]byte(raw), &kind) // what has none is sent so
		w.Header().Set("Content-Type", kind.MediaType)
		_, _ = fmt.Fprint(w, raw)
	}))
	defer s.Close()
	of := func(children ...string) string {
		i := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
		for _, c := range children {
			manifests[digest.FromString(c).String()] = c
			i.Manifests = append(i.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(c), Size: int64(len(c))})
		}
		return encode(t, i)
	}
	var many []string
	for i := range maxImages + 1 {
		many = append(many, fmt.Sprint(i))
	}
	manifests["nested"], manifests["many"], manifests["empty"], manifests["else"] = of(of()), of(many...), of(), of(`{"mediaType":"text/plain"}`)
	for tag, says := range map[string]string{"nested": "names an index", "many": "257 images", "empty": "0 images", "else": "not accepted"} {
		objects, err := object.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer objects.Close()
		_, err = Fetch(t.Context(), objects, strings.TrimPrefix(s.URL, "http://")+"/web:"+tag, "", false, quiet)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: it is fetched, or refused for something else: %v", tag, err)
		}
		if err := objects.Walk(func(d digest.Digest, _ int64) error { return fmt.Errorf("%s is left", d) }); err != nil {
			t.Error(err)
		}
	}
}
