package build

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// ExportLayout writes an artifact, or an index of artifacts, as an OCI image layout to a path that does not
// exist yet, or as an oci-archive if the path ends in .tar. Layers are written from
// their trees and compared with the manifest: what is exported is what was built, or
// nothing is. The tag may be empty.
//
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
func ExportLayout(ctx context.Context, objects *object.Store, manifest digest.Digest, tag, path string) (err error) {
	l, err := loadLayout(objects, manifest)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fault.New(fault.Conflict, "%s exists already", path).Mend("remove it, or export to another path")
	}
	path = filepath.Clean(path)
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".export-")
	if err != nil {
		return fault.New(fault.Unavailable, "cannot write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	out := filepath.Join(tmp, "out")
	var w layoutWriter = dirLayout(out)
	if strings.HasSuffix(path, ".tar") {
		f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		w = &tarLayout{f: f, w: tar.NewWriter(f)}
	}
	if err := l.write(ctx, w, tag); err != nil {
		return err
	}
	return os.Rename(out, path)
}

// layout is what an OCI layout has in it: one artifact, or an index and its artifacts.
type layout struct {
	top    ocispec.Descriptor
	index  []byte // nil: top is an artifact
	images []loaded
}

func loadLayout(objects *object.Store, name digest.Digest) (layout, error) {
	raw, err := objects.ReadAll(name, image.ManifestLimit)
	if err != nil {
		return layout{}, err
	}
	l := layout{top: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: name, Size: int64(len(raw))}}
	names := []digest.Digest{name}
	if platforms, ok := image.ParseIndex(raw); ok {
		l.top.MediaType, l.index, names = ocispec.MediaTypeImageIndex, raw, nil
		for _, p := range platforms {
			names = append(names, p.Manifest)
		}
	}
	for _, name := range names {
		img, err := loadImage(objects, name)
		if err != nil {
			return l, err
		}
		l.images = append(l.images, img)
	}
	return l, nil
}

// loaded is an artifact with everything but its layers' bytes.
type loaded struct {
	objects  *object.Store
	name     digest.Digest
	manifest []byte
	config   []byte
	layers   []image.Layer
}

func loadImage(objects *object.Store, name digest.Digest) (loaded, error) {
	l := loaded{objects: objects, name: name}
	var err error
	if l.manifest, err = objects.ReadAll(name, image.ManifestLimit); err != nil {
		return l, err
	}
	m, err := image.ParseManifest(l.manifest)
	if err != nil {
		return l, err
	}
	if l.config, err = objects.ReadAll(m.Config, image.ManifestLimit); err != nil {
		return l, err
	}
	l.layers = m.Layers
	_, err = m.ParseConfig(l.config)
	return l, err
}

// layoutWriter takes the files of a layout, one after another.
type layoutWriter interface {
	file(name string, size int64, write func(io.Writer) error) error
	close() error
}

func (l layout) write(ctx context.Context, w layoutWriter, tag string) error {
	root, err := json.Marshal(l.root(tag))
	if err != nil {
		return err
	}
	out := blobs{w: w, written: map[digest.Digest]bool{}}
	err = errors.Join(
		out.bytes(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)),
		out.bytes(ocispec.ImageIndexFile, root),
	)
	if err == nil && l.index != nil {
		err = out.blob(l.index)
	}
	for _, img := range l.images {
		if err == nil {
			err = img.write(ctx, out)
		}
	}
	if err != nil {
		return err
	}
	return w.close()
}

// blobs writes each blob of a layout once.
type blobs struct {
	w       layoutWriter
	written map[digest.Digest]bool
}

func (o blobs) bytes(name string, b []byte) error {
	return o.w.file(name, int64(len(b)), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func (o blobs) blob(b []byte) error {
	d := digest.FromBytes(b)
	if o.written[d] {
		return nil
	}
	o.written[d] = true
	return o.bytes(blobName(d), b)
}

func (l loaded) write(ctx context.Context, out blobs) error {
	for _, b := range [][]byte{l.manifest, l.config} {
		if err := out.blob(b); err != nil {
			return err
		}
	}
	for _, layer := range l.layers {
		if out.written[layer.Digest] {
			continue
		}
		out.written[layer.Digest] = true
		if err := out.w.file(blobName(layer.Digest), layer.Size, func(w io.Writer) error { return l.layer(ctx, w, layer) }); err != nil {
			return err
		}
	}
	return nil
}

// layer writes one layer's tar, checked against the manifest.
func (l loaded) layer(ctx context.Context, w io.Writer, layer image.Layer) error {
	raw, err := l.objects.ReadAll(layer.Tree, image.TreeLimit)
	if err != nil {
		return err
	}
	t, err := image.UnmarshalTree(raw)
	if err != nil {
		return err
	}
	sum := digest.SHA256.Digester()
	if err := image.WriteTar(io.MultiWriter(w, sum.Hash()), t, ctxOpener{ctx, l.objects}); err != nil {
		return err
	}
	if got := sum.Digest(); got != layer.Digest {
		return fault.New(fault.Refused, "the layer made from tree %s is %s, the manifest names %s", layer.Tree, got, layer.Digest).
			Mend("build the component again; if that gives the same, its manifest was written by another version of Ashlar")
	}
	return nil
}

// root is index.json, which names the layout's top.
func (l layout) root(tag string) ocispec.Index {
	d := l.top
	if tag != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	return ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d},
	}
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// dirLayout is a layout in a directory.
type dirLayout string

func (d dirLayout) file(name string, _ int64, write func(io.Writer) error) error {
	path := filepath.Join(string(d), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func (dirLayout) close() error { return nil }

// tarLayout is a layout in one tar file.
type tarLayout struct {
	f *os.File
	w *tar.Writer
}

func (t *tarLayout) file(name string, size int64, write func(io.Writer) error) error {
	h := &tar.Header{Format: tar.FormatPAX, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	if err := write(t.w); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

func (t *tarLayout) close() error { return errors.Join(t.w.Close(), t.f.Close()) }
