package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// hostileLayers are layers that no image may have, and what is said of them.
var hostileLayers = map[string]struct {
	layers [][]file
	want   string
}{
	"an absolute path":                  {[][]file{{{name: "/etc/passwd"}}}, "has an absolute path"},
	"a path over the root":              {[][]file{{{name: "a/../../etc/passwd"}}}, "leaves the root by .."},
	"a path with .. within":             {[][]file{{{name: "a/../b"}}}, "leaves the root by .."},
	"a whiteout over the root":          {[][]file{{{name: "../.wh.etc"}}}, "leaves the root by .."},
	"a file through a link":             {[][]file{{{name: "evil", typ: tar.TypeSymlink, link: "/etc"}, {name: "evil/passwd", body: "x"}}}, "is to be unpacked through \"evil\""},
	"a link set below a file":           {[][]file{{{name: "evil/passwd", body: "x"}, {name: "evil", typ: tar.TypeSymlink, link: "/etc"}}}, "is to be unpacked through \"evil\""},
	"a file below a file":               {[][]file{{{name: "f", body: "x"}, {name: "f/g", body: "x"}}}, "is to be unpacked through \"f\""},
	"a file below a file of before":     {[][]file{{{name: "f", body: "x"}}, {{name: "f/g", body: "x"}}}, "which is a file of a layer below"},
	"through a link that climbs":        {[][]file{{{name: "evil", typ: tar.TypeSymlink, link: "../../../etc"}}, {{name: "evil/passwd", body: "x"}}}, "leads out of the root through a symbolic link"},
	"a whiteout through one":            {[][]file{{{name: "evil", typ: tar.TypeSymlink, link: "../../etc"}}, {{name: "evil/.wh.passwd"}}}, "leads out of the root through a symbolic link"},
	"links in a circle":                 {[][]file{{{name: "a", typ: tar.TypeSymlink, link: "b"}, {name: "b", typ: tar.TypeSymlink, link: "a"}}, {{name: "a/x"}}}, "more than 40 symbolic links"},
	"a hard link outside":               {[][]file{{{name: "h", typ: tar.TypeLink, link: "../../etc/shadow"}}}, "is a hard link to \"../../etc/shadow\", which leaves the root"},
	"an absolute hard link":             {[][]file{{{name: "h", typ: tar.TypeLink, link: "/etc/shadow"}}}, "has an absolute path"},
	"a hard link to nothing":            {[][]file{{{name: "h", typ: tar.TypeLink, link: "etc/shadow"}}}, "which is no file of the image"},
	"a hard link to a directory":        {[][]file{{{name: "d/"}, {name: "h", typ: tar.TypeLink, link: "d"}}}, "which is no file"},
	"a hard link through one":           {[][]file{{{name: "evil", typ: tar.TypeSymlink, link: "../etc"}}, {{name: "h", typ: tar.TypeLink, link: "evil/shadow"}}}, "leads out of the root"},
	"a character device":                {[][]file{{{name: "dev/null", typ: tar.TypeChar}}}, "is a device"},
	"a block device":                    {[][]file{{{name: "sda", typ: tar.TypeBlock}}}, "is a device"},
	"a pipe":                            {[][]file{{{name: "pipe", typ: tar.TypeFifo}}}, "is a named pipe"},
	"a type nobody knows":               {[][]file{{{name: "x", typ: 'Z'}}}, "is of the unknown type"},
	"the root as a file":                {[][]file{{{name: ".", body: "x"}}}, "replaces the root directory"},
	"a file twice":                      {[][]file{{{name: "f", body: "1"}, {name: "./f", body: "2"}}}, "stands twice"},
	"a directory twice":                 {[][]file{{{name: "d/"}, {name: "d/", mode: 0o777}}}, "stands twice in the layer, with different attributes"},
	"a file, then a directory":          {[][]file{{{name: "f", body: "1"}, {name: "f/"}}}, "stands twice"},
	"a hard link twice":                 {[][]file{{{name: "f"}}, {{name: "h", typ: tar.TypeLink, link: "f"}, {name: "h", typ: tar.TypeLink, link: "f"}}}, "stands twice"},
	"a name that is not UTF-8":          {[][]file{{{name: "f\xff"}}}, "not UTF-8"},
	"a name that is too long":           {[][]file{{{name: strings.Repeat("n", 256)}}}, "longer than 255 bytes"},
	"a path that is too long":           {[][]file{{{name: strings.Repeat("nnnnnnnnn/", 420) + "f"}}}, "at most 4095 bytes"},
	"a link to nowhere":                 {[][]file{{{name: "l", typ: tar.TypeSymlink, link: strings.Repeat("l", 5000)}}}, "a link target is UTF-8"},
	"a whiteout of nothing":             {[][]file{{{name: "d/.wh."}}}, "is a whiteout of nothing"},
	"a whiteout of ..":                  {[][]file{{{name: "d/.wh..."}}}, "is a whiteout of nothing"},
	"a whiteout with content":           {[][]file{{{name: "d/.wh.x", body: "x"}}}, "is no empty file"},
	"a whiteout that is a link":         {[][]file{{{name: "d/.wh.x", typ: tar.TypeSymlink, link: "y"}}}, "is no empty file"},
	"a file below a whiteout":           {[][]file{{{name: "d/.wh.x/y", body: "1"}}}, "would delete a file"},
	"an attribute of sealed trees":      {[][]file{{{name: "f", pax: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/ab/cd"}}}}, "is reserved for sealed trees"},
	"an attribute that no tree can say": {[][]file{{{name: "f", pax: map[string]string{"SCHILY.xattr.system.posix_acl_access": "x"}}}}, "not of the class"},
	"an owner that cannot be":           {[][]file{{{name: "f", uid: 1 << 40}}}, "is out of range"},
}

// hostile are images that are refused for another reason than their layers.
var hostileImages = map[string]struct {
	make func(t *testing.T) string // path of the image
	want string
}{
	"another layer": {func(t *testing.T) string {
		i := small1(t)
		return i.swap(i.manifest.Layers[0].Digest, packed(t, "gzip", tarOf(t, file{name: "other"}))).archive()
	}, "layer 1"},
	"one bit of a layer": {func(t *testing.T) string {
		i := small1(t)
		d := i.manifest.Layers[0].Digest
		b := slices.Clone(i.blobs[d])
		b[len(b)/2] ^= 1
		return i.swap(d, b).archive()
	}, "layer 1 of the image: the content is not what its digest says"},
	"one bit of the configuration": {func(t *testing.T) string {
		i := small1(t)
		return i.swap(i.manifest.Config.Digest, bytes.Replace(i.blobs[i.manifest.Config.Digest], []byte("linux"), []byte("linuy"), 1)).archive()
	}, "the configuration is not what names it"},
	"one bit of the manifest": {func(t *testing.T) string {
		i := small1(t)
		return i.swap(i.name(), bytes.Replace(i.blobs[i.name()], []byte("gzip"), []byte("zstd"), 1)).archive()
	}, "the manifest is not what names it"},
	"a layer cut short": {func(t *testing.T) string {
		i := small1(t)
		d := i.manifest.Layers[0].Digest
		return i.swap(d, i.blobs[d][:20]).archive()
	}, "has 20 bytes, not"},
	"a layer's stream cut short": {func(t *testing.T) string {
		b := packed(t, "gzip", tarOf(t, file{name: "a", body: strings.Repeat("text", 1000)}))
		return raw(t, b[:len(b)-20], digest.FromString("x")).archive()
	}, "unexpected EOF"},
	"a layer's tar cut short": {func(t *testing.T) string {
		b := tarOf(t, file{name: "a", body: strings.Repeat("text", 1000)})[:2000]
		return raw(t, b, digest.FromBytes(b)).archive()
	}, "unexpected EOF"},
	"more after the stream": {func(t *testing.T) string {
		b := packed(t, "gzip", tarOf(t, file{name: "a"}))
		return raw(t, append(b, "more"...), digest.FromBytes(tarOf(t, file{name: "a"}))).archive()
	}, "cannot be read to its end"},
	"a DiffID of another layer": {func(t *testing.T) string {
		i := small1(t)
		i.config.RootFS.DiffIDs[0] = digest.FromString("another")
		i.reconfigure()
		return i.archive()
	}, "is not the one that the configuration names by DiffID"},
	"a DiffID too few": {func(t *testing.T) string {
		i := small1(t)
		i.config.RootFS.DiffIDs = nil
		i.reconfigure()
		return i.archive()
	}, "0 DiffIDs of type \"layers\", its manifest 1 layers"},
	"a layer that is said to be shorter": {spoiled(func(i *img) {
		i.manifest.Layers[0].Size--
	}), "bytes, not"},
	"a size below zero": {spoiled(func(i *img) {
		i.manifest.Layers[0].Size = -1
	}), "has -1 bytes"},
	"a configuration for another machine": {func(t *testing.T) string {
		i := small1(t)
		i.config.Architecture = "s390x"
		i.reconfigure()
		i.index.Manifests[0].Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		return i.archive()
	}, "no image for linux/amd64"},
	"a digest that is a path": {spoiled(func(i *img) {
		i.manifest.Layers[0].Digest = "sha256:../../../../etc/passwd"
	}), "which is not a SHA-256"},
	"a weaker digest": {spoiled(func(i *img) {
		i.manifest.Config.Digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
	}), "which is not a SHA-256"},
	"a layer that is elsewhere": {spoiled(func(i *img) {
		i.manifest.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	}), "not that of a layer"},
	"a layer that is not there": {func(t *testing.T) string {
		i := small1(t)
		delete(i.blobs, i.manifest.Layers[0].Digest)
		return i.archive()
	}, "is not in the archive"},
	"an artifact, not an image": {spoiled(func(i *img) {
		i.manifest.Config.MediaType = "application/vnd.example"
	}), "is not an image but"},
	"a manifest and index at once": {func(t *testing.T) string {
		i := small1(t)
		b := bytes.Replace(i.json(i.manifest), []byte(`{"schemaVersion":2`), []byte(`{"manifests":[],"schemaVersion":2`), 1)
		i.index.Manifests[0] = i.add(ocispec.MediaTypeImageManifest, b)
		return i.archive()
	}, "a manifest and an index at once"},
	"a manifest above the limit": {spoiled(func(i *img) {
		i.manifest.Annotations = map[string]string{"a": strings.Repeat("x", manifestLimit)}
	}), "at most 4194304 are read"},
	"an index above the limit": {func(t *testing.T) string {
		i := small1(t)
		i.index.Annotations = map[string]string{"a": strings.Repeat("x", manifestLimit)}
		return i.archive()
	}, "at most 4194304 are read"},
	"a thousand layers": {spoiled(func(i *img) {
		i.manifest.Layers = slices.Repeat(i.manifest.Layers, 1000)
	}), "1000 layers, more than 512"},
	"an index that names itself": {func(t *testing.T) string {
		i := small1(t)
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("self"), Size: 0}
		body := i.json(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
		d.Size = int64(len(body))
		i.blobs[d.Digest] = body
		i.index.Manifests[0] = d
		return i.archive()
	}, "the index is not what names it"},
	"indexes without end": {func(t *testing.T) string {
		i := small1(t)
		for range 100 {
			i.index.Manifests[0] = i.add(ocispec.MediaTypeImageIndex, i.json(i.index))
		}
		return i.archive()
	}, "more than 4 deep"},
	"indexes that multiply": {func(t *testing.T) string {
		i := small1(t)
		for range 4 {
			inner := i.index
			inner.Manifests = slices.Repeat(inner.Manifests[:1], 100)
			i.index.Manifests[0] = i.add(ocispec.MediaTypeImageIndex, i.json(inner))
		}
		return i.archive()
	}, "more than 10000 manifests"},
	"text that is no JSON": {func(t *testing.T) string {
		i := small1(t)
		i.index.Manifests[0] = i.add(ocispec.MediaTypeImageManifest, []byte("{"))
		return i.archive()
	}, "is not an image manifest or index"},
	"no image at all": {func(t *testing.T) string {
		return written(t, "x.tar", tarOf(t, file{name: "README", body: "hello"}))
	}, "it is not an image"},
	"no archive at all": {func(t *testing.T) string {
		return written(t, "x.tar", []byte(strings.Repeat("hello", 1000)))
	}, "the archive cannot be read"},
	"a packed archive": {func(t *testing.T) string {
		return written(t, "x.tar.gz", packed(t, "gzip", tarOf(t, file{name: "README", body: "hello"})))
	}, "the archive is compressed"},
	"an archive with a member twice": {func(t *testing.T) string {
		i := small1(t)
		return written(t, "x.tar", tarOf(t, append(i.files(), file{name: "./index.json", body: "{}"})...))
	}, "stands twice in the archive"},
	"an archive with many members": {func(t *testing.T) string {
		var all []file
		for n := range maxMembers + 1 {
			all = append(all, file{name: fmt.Sprint(n)})
		}
		return written(t, "x.tar", tarOf(t, append(all, small1(t).files()...)...))
	}, "more than 20000 members"},
	"a layout with a link out of it": {func(t *testing.T) string {
		i := small1(t)
		dir := i.dir()
		name := filepath.Join(dir, blobName(i.manifest.Layers[0].Digest))
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc/passwd", name); err != nil {
			t.Fatal(err)
		}
		return dir
	}, "path escapes"},
	"a layout with a pipe": {func(t *testing.T) string {
		i := small1(t)
		dir := i.dir()
		name := filepath.Join(dir, "index.json")
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}, "is not a file"},
	"docker save: a layer outside":           {func(t *testing.T) string { return badSaved(t, "../../etc/passwd") }, "leads out of the archive"},
	"docker save: a layer by absolute path":  {func(t *testing.T) string { return badSaved(t, "/etc/passwd") }, "leads out of the archive"},
	"docker save: a layer that is not there": {func(t *testing.T) string { return badSaved(t, "b/layer.tar") }, "is not in the archive"},
	"docker save: links in a circle": {func(t *testing.T) string {
		return badSaved(t, "l", file{name: "l", typ: tar.TypeSymlink, link: "m"}, file{name: "m", typ: tar.TypeSymlink, link: "l"})
	}, "is not in the archive"},
	"docker save: another layer": {func(t *testing.T) string {
		return badSaved(t, "a", file{name: "a", body: string(tarOf(t, file{name: "other"}))})
	}, "layer 1 of the image: the content is not what its digest says"},
	"docker save: nothing": {func(t *testing.T) string {
		return written(t, "x.tar", tarOf(t, file{name: "manifest.json", body: "[]"}))
	}, "names 0 images"},
	"a gzip bomb": {func(t *testing.T) string { return bomb(t, "gzip") }, "decompression bomb"},
	"a zstd bomb": {func(t *testing.T) string { return bomb(t, "zstd") }, "decompression bomb"},
	"a million entries": {func(t *testing.T) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for n := range 1_000_000 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/", n), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return raw(t, b.Bytes(), digest.FromString("x")).archive()
	}, "it has more than 500000 entries"},
}

// Whatever byte of an image is another: the image is refused, or is the very same,
// which only what is beside its manifest can leave it.
func TestFlippedBitInImage(t *testing.T) {
	i := small1(t)
	files := i.files()
	store, dir := newStore(t)
	counts := map[string]int{}
	for n, f := range files {
		what := i.role(f.name)
		for at := range len(f.body) {
			if what == "index" || what == "oci-layout" {
				store, _ = newStore(t) // an image that is on hand is not read again
			}
			bad := []byte(f.body)
			bad[at] ^= 1 << (at % 8)
			changed := slices.Clone(files)
			changed[n].body = string(bad)
			got, err := Unpack(t.Context(), store, Request{Path: written(t, "x.tar", tarOf(t, changed...)), Arch: "amd64", Digest: i.name()})
			switch {
			case err == nil && (what == "index" || what == "oci-layout") && got.Manifest == i.name():
				counts["the very same, with another "+what]++
			case err == nil:
				t.Errorf("%s: byte %d of %s: taken as %s", what, at, f.name, got.Manifest)
			case strings.Contains(err.Error(), "not what its digest says"), strings.Contains(err.Error(), "not what names it"):
				counts["digest <- one bit of a "+what]++
			default:
				counts["not an image <- one bit of a "+what]++
			}
		}
	}
	for what, n := range counts {
		if strings.Contains(what, " <- ") {
			t.Attr("refused", fmt.Sprintf("%s, %d times", what, n))
		} else {
			t.Logf("%s, %d times", what, n)
		}
	}
	if files := left(t, dir); len(files) > 0 {
		t.Errorf("left in the store of what was refused: %v", files)
	}
}

// role is what a file of the layout is.
func (i *img) role(name string) string {
	switch {
	case strings.HasSuffix(name, i.name().Encoded()):
		return "manifest"
	case strings.HasSuffix(name, i.manifest.Config.Digest.Encoded()):
		return "configuration"
	case strings.HasPrefix(name, "blobs/"):
		return "layer"
	}
	return strings.TrimSuffix(name, ".json")
}

// small1 is a sound image of one layer of one file.
// spoiled gives the archive of a sound image whose manifest was changed.
func spoiled(change func(i *img)) func(t *testing.T) string {
	return func(t *testing.T) string {
		i := small1(t)
		change(i)
		i.finish()
		return i.archive()
	}
}

func small1(t testing.TB) *img { return imageOf(t, "gzip", tarOf(t, file{name: "f", body: "sound"})) }

// swap puts other bytes under a digest.
func (i *img) swap(d digest.Digest, b []byte) *img {
	i.blobs[d] = b
	return i
}

// raw is an image of one layer that is these bytes, whatever they are.
func raw(t testing.TB, b []byte, diffID digest.Digest) *img {
	i := small1(t)
	i.manifest.Layers = []ocispec.Descriptor{i.add(ocispec.MediaTypeImageLayerGzip, b)}
	i.config.RootFS.DiffIDs = []digest.Digest{diffID}
	i.reconfigure()
	return i
}

// bomb is an image of one layer with one file of many zeros.
func bomb(t *testing.T, ext string) string {
	var b bytes.Buffer
	var z io.WriteCloser = gzip.NewWriter(&b)
	if ext == "zstd" {
		var err error
		if z, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	const size = 300 << 20
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return raw(t, b.Bytes(), digest.FromString("x")).archive()
}

// badSaved is a `docker save` archive with a layer of that name.
func badSaved(t *testing.T, layer string, more ...file) string {
	i := small1(t)
	s, err := json.Marshal([]dockerSaved{{Config: "c.json", Layers: []string{layer}}})
	if err != nil {
		t.Fatal(err)
	}
	files := append(more, file{name: "c.json", body: string(i.json(i.config))}, file{name: "manifest.json", body: string(s)})
	return written(t, "x.tar", tarOf(t, files...))
}

// TestHostile is the table of what is refused. Nothing of it stays in the store.
func TestHostile(t *testing.T) {
	refuse := func(t *testing.T, path, want string) {
		t.Helper()
		store, dir := newStore(t)
		_, err := take(t, store, path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("got %v\nwant %q", err, want)
		}
		if kind := fault.Of(err).Kind; kind != fault.Refused && kind != fault.NotFound {
			t.Errorf("kind %s: %v", kind, err)
		}
		if files := left(t, dir); len(files) > 0 {
			t.Errorf("left in the store: %v", files)
		}
		t.Attr("refused", want+" <- "+t.Name())
	}
	for name, c := range hostileLayers {
		t.Run(name, func(t *testing.T) {
			tars := make([][]byte, len(c.layers))
			for i, l := range c.layers {
				tars[i] = tarOf(t, append([]file{{name: "before", body: "sound"}}[:1-min(i, 1)], l...)...)
			}
			refuse(t, imageOf(t, "zstd", tars...).archive(), c.want)
		})
	}
	for name, c := range hostileImages {
		t.Run(name, func(t *testing.T) { refuse(t, c.make(t), c.want) })
	}
	t.Run("an archive cut short anywhere", func(t *testing.T) {
		store, dir := newStore(t)
		files := small1(t).files()
		whole := tarOf(t, files...)
		for n := 0; n < len(whole)-1024-512+len(files[len(files)-1].body); n += 97 {
			if _, err := take(t, store, written(t, "x.tar", whole[:n])); err == nil {
				t.Fatalf("%d of %d bytes are taken for an image", n, len(whole))
			}
		}
		t.Attr("refused", "ends early <- an archive cut short anywhere")
		if files := left(t, dir); len(files) > 0 {
			t.Errorf("left in the store: %v", files)
		}
	})
	for _, format := range []string{"gnu", "pax"} {
		t.Run("a sparse file, "+format, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, "f"), 1<<40); err != nil {
				t.Fatal(err)
			}
			b, err := exec.Command("tar", "-C", dir, "--sparse", "--format="+format, "-c", "f").Output()
			if err != nil {
				t.Fatal(err)
			}
			refuse(t, imageOf(t, "gzip", b).archive(), "is a sparse file")
		})
	}
	t.Run("NUL in a name", func(t *testing.T) {
		b := tarOf(t, file{name: strings.Repeat("n", 150)})
		refuse(t, raw(t, bytes.Replace(b, []byte("path=nnn"), []byte("path=n\x00n"), 1), "sha256:"+digest.Digest(strings.Repeat("0", 64))).archive(), "its tar cannot be read")
	})
}
