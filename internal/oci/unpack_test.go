package oci

import (
	"archive/tar"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep

// layered are layers that use all that layers can say.
func layered(t testing.TB) [][]byte {
	long := strings.Repeat("long/", 40) + strings.Repeat("n", 120)
	return [][]byte{
		tarOf(t,
			file{name: "./", mode: 0o755}, file{name: "./etc/", mode: 0o750, uid: 3}, file{name: "./etc/passwd", body: "root"},
			file{name: "./etc/gone", body: "x"}, file{name: "./usr/bin/tool", body: "tool", mode: 0o4755},
			file{name: "./usr/bin/server", body: "server", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": capability}},
			file{name: "./bin", typ: tar.TypeSymlink, link: "usr/bin"}, file{name: "./hidden/a/b", body: "1"}, file{name: "./hidden/c", body: "1"},
			file{name: "./was/dir/file", body: "1"}, file{name: "./" + long, body: "long"},
		),
		tarOf(t,
			file{name: "etc/.wh.gone"}, file{name: "etc/.wh.never-was"}, file{name: "hidden/.wh..wh..opq"}, file{name: "hidden/new", body: "2"},
			file{name: "bin/added", body: "through the link"}, file{name: "bin/hard", typ: tar.TypeLink, link: "usr/bin/tool"},
			file{name: "same", body: "same"}, file{name: "same2", typ: tar.TypeLink, link: "./same"},
			file{name: "was/", mode: 0o700}, file{name: "was/dir", body: "a file now"},
		),
		tarOf(t, file{name: "hidden/.wh.new"}, file{name: "hidden/new", body: "removed and made again"}),
	}
}

func TestUnpack(t *testing.T) {
	var first image.Tree
	for _, ext := range []string{"", "gzip", "zstd"} {
		i := imageOf(t, ext, layered(t)...)
		for how, path := range map[string]string{"directory": i.dir(), "archive": i.archive(), "saved": i.saved("app:v1")} {
			t.Run(how+" "+ext, func(t *testing.T) {
				store, _ := newStore(t)
				got, err := take(t, store, path)
				if err != nil {
					t.Fatal(err)
				}
				if first.Entries == nil {
					first = got.Tree
				}
				if diff := image.Diff(first, got.Tree); diff != nil {
					t.Errorf("differs from the first: %v", diff)
				}
				if how != "saved" && got.Manifest != i.name() {
					t.Errorf("it is called %s, not %s", got.Manifest, i.name())
				}
				if len(got.Layers) != 3 || got.Reused {
					t.Errorf("layers %v, reused %v", got.Layers, got.Reused)
				}
			})
		}
	}
	long := strings.Repeat("long/", 40)
	want := []string{"./", "bin -> usr/bin", "etc/", "etc/passwd", "hidden/", "hidden/new"}
	for i := range long {
		if long[i] == '/' {
			want = append(want, long[:i+1])
		}
	}
	want = append(want, long+strings.Repeat("n", 120), "same", "same2", "usr/", "usr/bin/", "usr/bin/added", "usr/bin/hard", "usr/bin/server", "usr/bin/tool", "was/", "was/dir")
	if diff := cmp.Diff(want, paths(first)); diff != "" {
		t.Fatalf("the tree (-want +got):\n%s", diff)
	}
	for p, want := range map[string]image.Entry{
		"etc":            {Type: image.Dir, Mode: 0o750, UID: 3}, // the second layer only leads through it
		"was":            {Type: image.Dir, Mode: 0o700},
		"usr/bin/hard":   {Type: image.File, Mode: 0o4755, Size: 4, Digest: digest.FromString("tool")},
		"usr/bin/server": {Type: image.File, Mode: 0o755, Size: 6, Digest: digest.FromString("server"), Xattrs: map[string]string{"security.capability": capability}},
		"hidden/new":     {Type: image.File, Mode: 0o644, Size: 22, Digest: digest.FromString("removed and made again")},
	} {
		want.Path = p
		if got, _ := first.Lookup(p); cmp.Diff(want, got) != "" {
			t.Errorf("%s (-want +got):\n%s", p, cmp.Diff(want, got))
		}
	}
}

// What was unpacked once is neither unpacked again nor needed.
func TestUnpackedOnce(t *testing.T) {
	store, _ := newStore(t)
	i := imageOf(t, "gzip", layered(t)...)
	path := i.archive()
	first, err := take(t, store, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := Unpack(t.Context(), store, Request{Path: path, Digest: first.Manifest, Arch: "amd64"})
	if err != nil || !again.Reused || image.Diff(first.Tree, again.Tree) != nil {
		t.Errorf("reused %v, %v, %v", again.Reused, image.Diff(first.Tree, again.Tree), err)
	}
	// Another image over the same layers unpacks what is new alone.
	more := imageOf(t, "gzip", append(layered(t), tarOf(t, file{name: "more", body: "x"}))...)
	got, err := take(t, store, more.archive())
	if err != nil || got.Reused {
		t.Fatalf("reused %v, %v", got.Reused, err)
	}
	refs, err := store.Refs(layerRef)
	if err != nil || len(refs) != 4 {
		t.Errorf("%d layers are remembered, want 4 (%v)", len(refs), err)
	}
	// A file that was lost is brought back from the layer, which is still there.
	file, err := store.File(digest.FromString("server"))
	if err := errors.Join(err, os.Remove(file)); err != nil {
		t.Fatal(err)
	}
	again, err = Unpack(t.Context(), store, Request{Path: path, Digest: first.Manifest, Arch: "amd64"})
	if err != nil || again.Reused || !store.Has(digest.FromString("server")) {
		t.Errorf("reused %v, %v", again.Reused, err)
	}
}

func TestChoose(t *testing.T) {
	amd, arm := imageOf(t, "", tarOf(t, file{name: "amd"})), imageOf(t, "", tarOf(t, file{name: "arm"}))
	arm.config.Architecture = "arm64"
	arm.reconfigure()
	both := &img{t: t, blobs: map[digest.Digest][]byte{}}
	inner := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	inner.SchemaVersion = 2
	for _, i := range []*img{amd, arm} {
		for d, b := range i.blobs {
			both.blobs[d] = b
		}
		d := i.index.Manifests[0]
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: i.config.Architecture}
		inner.Manifests = append(inner.Manifests, d)
	}
	attested := amd.index.Manifests[0]
	attested.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	inner.Manifests = append(inner.Manifests, attested)
	top := both.add(ocispec.MediaTypeImageIndex, both.json(inner))
	top.Annotations = map[string]string{ocispec.AnnotationRefName: "v2"}
	old := amd.index.Manifests[0]
	old.Annotations = map[string]string{ocispec.AnnotationRefName: "v1", "io.containerd.image.name": "docker.io/library/app:v1"}
	other := imageOf(t, "", tarOf(t, file{name: "other"}))
	for d, b := range other.blobs {
		both.blobs[d] = b
	}
	third := other.index.Manifests[0]
	third.Annotations = map[string]string{ocispec.AnnotationRefName: "v3"}
	both.index = inner
	both.index.Manifests = []ocispec.Descriptor{old, top, third}
	path := both.dir()
	for name, c := range map[string]struct {
		q    Request
		want digest.Digest
		text string
	}{
		"by tag":              {Request{Tag: "v1", Arch: "amd64"}, amd.name(), ""},
		"by containerd's tag": {Request{Tag: "library/app:v1", Arch: "amd64"}, amd.name(), ""},
		"by platform":         {Request{Arch: "arm64"}, arm.name(), ""},
		"tag and platform":    {Request{Tag: "v2", Arch: "arm64"}, arm.name(), ""},
		"by the index":        {Request{Digest: top.Digest, Arch: "amd64"}, amd.name(), ""},
		"by digest":           {Request{Digest: other.name(), Arch: "amd64"}, other.name(), ""},
		"several":             {Request{Arch: "amd64"}, "", "it holds 2 images for linux/amd64"},
		"no such tag":         {Request{Tag: "v4", Arch: "amd64"}, "", "no image with the tag \"v4\""},
		"no such platform":    {Request{Tag: "v2", Arch: "riscv64"}, "", "no image for linux/riscv64"},
		"no such digest":      {Request{Digest: digest.FromString("x"), Arch: "amd64"}, "", "does not hold the image sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			c.q.Path = path
			got, err := Find(c.q)
			if got != c.want || (err != nil) != (c.text != "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}

// The image that is locked is the one that is taken, or none.
func TestOtherImageThere(t *testing.T) {
	store, dir := newStore(t)
	i := imageOf(t, "", tarOf(t, file{name: "a"}))
	_, err := Unpack(t.Context(), store, Request{Path: i.archive(), Digest: digest.FromString("another"), Arch: "amd64"})
	if fault.Of(err).Kind != fault.Conflict || !strings.Contains(err.Error(), "does not hold the image") {
		t.Errorf("got %v", err)
	}
	if files := left(t, dir); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
	t.Attr("refused", "does not hold the image <- another image lies where the locked one was")
	_, err = Unpack(t.Context(), store, Request{Path: i.archive(), Digest: i.name(), Arch: "arm64"})
	if err == nil || !strings.Contains(err.Error(), "for linux/arm64") {
		t.Errorf("got %v", err)
	}
	if _, err := take(t, store, i.archive()); err != nil { // now it is on hand
		t.Fatal(err)
	}
	_, err = Unpack(t.Context(), store, Request{Digest: i.name(), Arch: "arm64"})
	if err == nil || !strings.Contains(err.Error(), "is for \"linux/amd64\", not for linux/arm64") {
		t.Errorf("got %v", err)
	}
}
