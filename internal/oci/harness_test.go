package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// file is a member of a tar.
type file struct {
	name, body, link string
	typ              byte // default: a regular file, or a directory if the name ends in /
	mode             int64
	uid              int
	pax              map[string]string
}

// tarOf writes a tar.
func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.typ, Linkname: f.link, Size: int64(len(f.body)), Mode: f.mode, Uid: f.uid, PAXRecords: f.pax}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(f.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t testing.TB, ext string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch ext {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		return b
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// img is an image being made; a test may change any part before it is written.
type img struct {
	t        testing.TB
	config   ocispec.Image
	manifest ocispec.Manifest
	index    ocispec.Index
	blobs    map[digest.Digest][]byte
	arch     string
}

// imageOf makes a sound image of layers: tars, and how each is compressed.
func imageOf(t testing.TB, ext string, tars ...[]byte) *img {
	i := &img{t: t, blobs: map[digest.Digest][]byte{}, arch: "amd64"}
	i.config = ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: i.arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	i.manifest.SchemaVersion, i.manifest.MediaType = 2, ocispec.MediaTypeImageManifest
	for _, b := range tars {
		i.layer(ext, b)
	}
	i.manifest.Config = i.add(ocispec.MediaTypeImageConfig, i.json(i.config))
	i.finish()
	return i
}

func (i *img) layer(ext string, b []byte) {
	i.config.RootFS.DiffIDs = append(i.config.RootFS.DiffIDs, digest.FromBytes(b))
	typ := ocispec.MediaTypeImageLayer
	if ext != "" {
		typ += "+" + ext
	}
	i.manifest.Layers = append(i.manifest.Layers, i.add(typ, packed(i.t, ext, b)))
}

// finish makes the index of the manifest as it is now.
func (i *img) finish() {
	d := i.add(ocispec.MediaTypeImageManifest, i.json(i.manifest))
	i.index = ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
	i.index.SchemaVersion = 2
}

// reconfigure makes manifest and index anew after the configuration was changed.
func (i *img) reconfigure() {
	i.manifest.Config = i.add(ocispec.MediaTypeImageConfig, i.json(i.config))
	i.finish()
}

func (i *img) json(v any) []byte {
	i.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		i.t.Fatal(err)
	}
	return b
}

func (i *img) add(mediaType string, b []byte) ocispec.Descriptor {
	d := digest.FromBytes(b)
	i.blobs[d] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// name is the manifest's digest.
func (i *img) name() digest.Digest { return i.index.Manifests[0].Digest }

// files are those of the layout.
func (i *img) files() []file {
	out := []file{
		{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`},
		{name: "index.json", body: string(i.json(i.index))},
	}
	for d, b := range i.blobs {
		out = append(out, file{name: "blobs/sha256/" + d.Encoded(), body: string(b)})
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return out
}

// archive writes an oci-archive and gives its path.
func (i *img) archive() string {
	i.t.Helper()
	return written(i.t, "image.tar", tarOf(i.t, i.files()...))
}

// dir writes a layout and gives its path.
func (i *img) dir() string {
	i.t.Helper()
	dir := i.t.TempDir()
	for _, f := range i.files() {
		name := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			i.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(f.body), 0o644); err != nil {
			i.t.Fatal(err)
		}
	}
	return dir
}

func written(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// saved writes what `docker save` would.
func (i *img) saved(tags ...string) string {
	i.t.Helper()
	s := dockerSaved{Config: "config.json", RepoTags: tags}
	files := []file{{name: s.Config, body: string(i.json(i.config))}}
	for n, l := range i.manifest.Layers {
		name := string(rune('a'+n)) + "/layer.tar"
		s.Layers = append(s.Layers, name)
		files = append(files, file{name: name, body: string(i.blobs[l.Digest])})
	}
	files = append(files, file{name: "manifest.json", body: string(i.json([]dockerSaved{s}))})
	return written(i.t, "saved.tar", tarOf(i.t, files...))
}

func newStore(t testing.TB) (*object.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := object.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dir
}

// take finds and unpacks an image.
func take(t testing.TB, store *object.Store, path string) (Image, error) {
	t.Helper()
	q := Request{Path: path, Arch: "amd64"}
	name, err := Find(q)
	if err != nil {
		return Image{}, err
	}
	q.Digest = name
	return Unpack(t.Context(), store, q)
}

// paths lists a tree: a directory ends in /, a link has its target.
func paths(t image.Tree) []string {
	var out []string
	for _, e := range t.Entries {
		p := e.Path
		switch e.Type {
		case image.Dir:
			p += "/"
		case image.Symlink:
			p += " -> " + e.Link
		}
		out = append(out, p)
	}
	return out
}

// left gives what a store holds: objects, references, and what is being written.
func left(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
