package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// opener opens what is in the object store as go-containerregistry wants it.
type opener struct {
	objects *object.Store
	tell    func(Moved)
	sent    atomic.Int64 // bytes
}

// manifest opens an image, or an index with its images.
func (o *opener) manifest(d digest.Digest) (remote.Taggable, []digest.Digest, error) {
	raw, doc, err := o.document(d)
	if err != nil {
		return nil, nil, err
	}
	if !isIndex(doc.MediaType) {
		img, err := o.open(raw, doc)
		return img, []digest.Digest{d}, err
	}
	index := localIndex{raw: raw, mediaType: doc.MediaType, images: map[v1.Hash]v1.Image{}}
	var images []digest.Digest
	for _, x := range doc.Manifests {
		img, err := o.image(x.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fault.New(fault.NotFound, "the image %s of the index %s is not here", platformOf(x), d).
				Mend("fetch the index whole:  ashlar pull --all REFERENCE")
		}
		if err != nil {
			return nil, nil, err
		}
		h, err := v1.NewHash(x.Digest.String())
		if err != nil {
			return nil, nil, err
		}
		index.images[h] = img
		images = append(images, x.Digest)
	}
	return index, compact(images), nil
}

// compact leaves each digest once, and sorts them.
func compact(all []digest.Digest) []digest.Digest {
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

func (o *opener) document(d digest.Digest) ([]byte, document, error) {
	raw, err := o.objects.ReadAll(d, maxManifest)
	if err != nil {
		return nil, document{}, err
	}
	doc, err := parseDocument(raw, "")
	if err != nil {
		return nil, doc, fault.New(fault.Refused, "%s is no manifest: %w", d, err)
	}
	return raw, doc, nil
}

// image opens what has to be the manifest of an image.
func (o *opener) image(d digest.Digest) (v1.Image, error) {
	raw, doc, err := o.document(d)
	if err != nil {
		return nil, err
	}
	if isIndex(doc.MediaType) {
		return nil, fault.New(fault.Invalid, "%s is an index within an index", d).Mend("push the indexes that have images, one after another")
	}
	return o.open(raw, doc)
}

func (o *opener) open(raw []byte, doc document) (_ v1.Image, err error) {
	i := &localImage{o: o, raw: raw, doc: doc, built: map[digest.Digest]image.Layer{}}
	if m, err := image.ParseManifest(raw); err == nil {
		for _, l := range m.Layers {
			i.built[l.Digest] = l
		}
	}
	if i.config, err = o.objects.ReadAll(doc.Blobs[0].Digest, image.ManifestLimit); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(i)
}

// localIndex implements v1.ImageIndex.
type localIndex struct {
	raw       []byte
	mediaType string
	images    map[v1.Hash]v1.Image
}

func (i localIndex) MediaType() (types.MediaType, error) { return types.MediaType(i.mediaType), nil }
func (i localIndex) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i localIndex) Size() (int64, error)                { return int64(len(i.raw)), nil }

// Digest implements v1.ImageIndex.
func (i localIndex) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(i.raw))
	return h, err
}

// IndexManifest implements v1.ImageIndex.
func (i localIndex) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(i.raw))
}

// Image implements v1.ImageIndex.
func (i localIndex) Image(h v1.Hash) (v1.Image, error) {
	img, ok := i.images[h]
	if !ok {
		return nil, fmt.Errorf("the index has no image %s", h)
	}
	return img, nil
}

// ImageIndex implements v1.ImageIndex.
func (i localIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("the index has no index %s", h)
}

// localImage is an image of the object store as go-containerregistry wants it. It
// implements partial.CompressedImageCore.
type localImage struct {
	o      *opener
	raw    []byte
	doc    document
	config []byte
	built  map[digest.Digest]image.Layer
}

func (i *localImage) MediaType() (types.MediaType, error) {
	return types.MediaType(i.doc.MediaType), nil
}
func (i *localImage) RawManifest() ([]byte, error)   { return i.raw, nil }
func (i *localImage) RawConfigFile() ([]byte, error) { return i.config, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (i *localImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, x := range i.doc.Blobs {
		if x.Digest == digest.Digest(h.String()) {
			return localLayer{i, x.Digest, x.Size, x.MediaType}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// localLayer implements partial.CompressedLayer.
type localLayer struct {
	i         *localImage
	digest    digest.Digest
	size      int64
	mediaType string
}

func (l localLayer) Digest() (v1.Hash, error)            { return v1.NewHash(l.digest.String()) }
func (l localLayer) Size() (int64, error)                { return l.size, nil }
func (l localLayer) MediaType() (types.MediaType, error) { return types.MediaType(l.mediaType), nil }

// Compressed gives the bytes as they are named; they are compared with the digest while
// they are read.
func (l localLayer) Compressed() (io.ReadCloser, error) {
	var r io.ReadSeekCloser
	var err error
	if b, ok := l.i.built[l.digest]; ok && !l.i.o.objects.Has(l.digest) {
		r, err = LayerReader(l.i.o.objects, b)
	} else {
		r, err = stored(l.i.o.objects, l.digest, l.digest).open()
	}
	if err != nil {
		return nil, err
	}
	return &counted{ReadCloser: r, m: Moved{What: short(l.digest), Total: l.size}, tell: l.i.o.tell, sum: &l.i.o.sent}, nil
}

// counted tells of what is read.
type counted struct {
	io.ReadCloser
	m    Moved
	tell func(Moved)
	sum  *atomic.Int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.m.Bytes += int64(n)
	c.sum.Add(int64(n))
	if n > 0 {
		c.tell(c.m)
	}
	return n, err
}

func short(d digest.Digest) string { return strings.TrimPrefix(d.String(), "sha256:")[:12] }
