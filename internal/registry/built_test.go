package registry

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// TestBuilt: what Ashlar built can be pulled, whole and in parts, and nothing of it is
// copied, changed or removed.
func TestBuilt(t *testing.T) {
	w := newWorld(t)
	manifest, layer, tar := w.build("a file", strings.Repeat("another\n", 1000))
	w.built["shop/web"] = map[string]digest.Digest{"7": manifest, strings.Repeat("ab", 32): manifest}
	before, _ := w.stored()

	got := w.want(http.StatusOK, "GET", "/v2/shop/web/manifests/7", "")
	if digest.FromString(got.body) != manifest || got.header.Get("Docker-Content-Digest") != manifest.String() || got.header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
		t.Errorf("the manifest is %s, %v", digest.FromString(got.body), got.header)
	}
	w.want(http.StatusOK, "GET", "/v2/shop/web/manifests/"+manifest.String(), "")
	blob := "/v2/shop/web/blobs/" + layer.Digest.String()
	if got := w.want(http.StatusOK, "GET", blob, ""); got.body != tar {
		t.Errorf("the layer has %d bytes, want %d", len(got.body), len(tar))
	}
	if got := w.want(http.StatusOK, "HEAD", blob, ""); got.header.Get("Content-Length") != strconv.Itoa(len(tar)) || got.header.Get("Docker-Content-Digest") != layer.Digest.String() {
		t.Errorf("HEAD: %v", got.header)
	}
	if got := w.want(http.StatusPartialContent, "GET", blob, "", "Range: bytes=700-5000"); got.body != tar[700:5001] {
		t.Error("a part of the layer differs")
	}
	w.want(http.StatusRequestedRangeNotSatisfiable, "GET", blob, "", "Range: bytes=999999999-")
	if got := w.want(http.StatusOK, "GET", "/v2/shop/web/tags/list", ""); got.body != `{"name":"shop/web","tags":["7","`+strings.Repeat("ab", 32)+`"]}` {
		t.Errorf("tags: %s", got.body)
	}
	if got := w.want(http.StatusOK, "GET", "/v2/_catalog", ""); got.body != `{"repositories":["shop/web"]}` {
		t.Errorf("catalog: %s", got.body)
	}
	for _, path := range []string{"manifests/7", "manifests/" + manifest.String(), "blobs/" + layer.Digest.String()} {
		w.want(http.StatusMethodNotAllowed, "DELETE", "/v2/shop/web/"+path, "")
	}
	w.want(http.StatusNotFound, "GET", "/v2/other/web/blobs/"+layer.Digest.String(), "")
	if after, refs := w.stored(); after != before || refs != 0 {
		t.Errorf("%d objects and %d references, want %d and 0", after, refs, before)
	}

	other := w.manifest("shop/web", "something else")
	for _, tag := range []string{"7", "8", strings.Repeat("cd", 32)} {
		if got := w.want(http.StatusForbidden, "PUT", "/v2/shop/web/manifests/"+tag, other, "Content-Type: "+ocispec.MediaTypeImageManifest); got.code() != "DENIED" {
			t.Errorf("tag %s: %s", tag, got.body)
		}
	}
	w.put("shop/web", "mine", other)
}

// TestStatements: what stands beside an artifact in the store is its referrer, and can
// be pulled from its repository alone.
func TestStatements(t *testing.T) {
	w := newWorld(t)
	manifest, _, _ := w.build("a file")
	w.built["shop/web"] = map[string]digest.Digest{"7": manifest}
	bundle, err := w.objects.PutBytes([]byte("a bundle"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.objects.PutBytes([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	raw := encode(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/bundle",
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{{MediaType: "application/bundle", Digest: bundle, Size: 8}},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: manifest, Size: 1}, Annotations: map[string]string{"a": "b"},
	})
	statement, err := w.objects.PutBytes([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.objects.SetRef(referrer.Kind, referrer.Name(manifest, statement), statement); err != nil {
		t.Fatal(err)
	}
	// Somebody else's, pushed.
	pushed := w.put("shop/web", "theirs", w.manifest("shop/web", "signature", func(m *ocispec.Manifest) {
		m.ArtifactType, m.Subject = "application/theirs", &ocispec.Descriptor{MediaType: m.MediaType, Digest: manifest, Size: 1}
	}))
	list := w.want(http.StatusOK, "GET", "/v2/shop/web/referrers/"+manifest.String(), "")
	for _, want := range []string{statement.String(), pushed.String(), `"artifactType":"application/bundle","`, `{"a":"b"}`} {
		if !strings.Contains(list.body+`"`, want) && !strings.Contains(list.body, strings.TrimSuffix(want, `,"`)) {
			t.Errorf("the referrers lack %s:\n%s", want, list.body)
		}
	}
	list = w.want(http.StatusOK, "GET", "/v2/shop/web/referrers/"+manifest.String()+"?artifactType=application/bundle", "")
	if strings.Contains(list.body, pushed.String()) || !strings.Contains(list.body, statement.String()) || list.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered: %s", list.body)
	}
	if got := w.want(http.StatusOK, "GET", "/v2/shop/web/manifests/"+statement.String(), ""); got.body != raw {
		t.Error("the statement's manifest differs")
	}
	if got := w.want(http.StatusOK, "GET", "/v2/shop/web/blobs/"+bundle.String(), ""); got.body != "a bundle" {
		t.Errorf("the bundle is %q", got.body)
	}
	w.push("elsewhere", "x")
	w.want(http.StatusNotFound, "GET", "/v2/elsewhere/manifests/"+statement.String(), "")
	w.want(http.StatusNotFound, "GET", "/v2/elsewhere/blobs/"+bundle.String(), "")
	if got := w.want(http.StatusOK, "GET", "/v2/elsewhere/referrers/"+manifest.String(), ""); strings.Contains(got.body, "sha256") {
		t.Errorf("another repository has %s", got.body)
	}
}

// TestDamagedIsNotServed: bytes that are not those of their digest never arrive whole.
func TestDamagedIsNotServed(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("x", 100000)
	manifest, layer, _ := w.build(content)
	w.built["shop/web"] = map[string]digest.Digest{"7": manifest}
	blob := w.push("pushed", strings.Repeat("y", 100000))
	for _, d := range []digest.Digest{digest.FromString(content), blob.Digest} {
		path, err := w.objects.File(d)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("!"), 50000); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, path := range []string{"/v2/shop/web/blobs/" + layer.Digest.String(), "/v2/pushed/blobs/" + blob.Digest.String()} {
		if got := w.do("GET", path, ""); got.err == nil {
			t.Errorf("%s gives %d bytes, of another digest", path, len(got.body))
		}
	}
}
