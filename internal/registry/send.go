package registry

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// Pushed is what a push did.
type Pushed struct {
	Reference  string        `json:"reference"` // with the digest
	Manifest   digest.Digest `json:"manifest"`
	Statements int           `json:"statements"`
	Bytes      int64         `json:"bytes"` // that were sent; what the other side had was not
}

// Push brings an image of the object store to another registry, with the statements
// about it: built by Ashlar, whose layers are made while they are sent, or fetched
// before. A registry that does not list referrers gets them under the fallback tag of
// the specification. What the other side has is not sent again.
func Push(ctx context.Context, objects *object.Store, manifest digest.Digest, to string, tell func(Moved)) (Pushed, error) {
	ref, err := ParseReference(to)
	if err != nil {
		return Pushed{}, err
	}
	if d, ok := ref.(name.Digest); ok && d.DigestStr() != manifest.String() {
		return Pushed{}, fault.New(fault.Invalid, "%s names another digest than %s", to, manifest).Mend("name a tag")
	}
	if ref.Identifier() == "" {
		return Pushed{}, fault.New(fault.Invalid, "%s names no tag", to).Mend("write  %s:TAG", to)
	}
	unlock, err := objects.Share(ctx)
	if err != nil {
		return Pushed{}, err
	}
	defer unlock()
	pusher, err := remote.NewPusher(options(ctx)...)
	if err != nil {
		return Pushed{}, failed("push to", ref, err)
	}
	out := Pushed{Reference: ref.Context().Name() + "@" + manifest.String(), Manifest: manifest}
	var sent atomic.Int64
	send := func(d digest.Digest, ref name.Reference) error {
		img, err := openImage(objects, d, func(m Moved) { tell(m) }, &sent)
		if err != nil {
			return err
		}
		if err := pusher.Push(ctx, ref, img); err != nil {
			return failed("push to", ref, err)
		}
		return nil
	}
	if err := send(manifest, ref); err != nil {
		return Pushed{}, err
	}
	statements, err := referrer.Of(objects, manifest)
	if err != nil {
		return out, err
	}
	for _, s := range statements { // one after another: the fallback tag is read and written
		if err := send(s.Manifest, ref.Context().Digest(s.Manifest.String())); err != nil {
			return out, err
		}
		out.Statements++
	}
	out.Bytes = sent.Load()
	return out, nil
}

// localImage is an image of the object store as go-containerregistry wants it. It
// implements partial.CompressedImageCore.
type localImage struct {
	objects  *object.Store
	manifest []byte
	doc      document
	config   []byte
	built    map[digest.Digest]image.Layer
	tell     func(Moved)
	sent     *atomic.Int64
}

func openImage(objects *object.Store, manifest digest.Digest, tell func(Moved), sent *atomic.Int64) (v1.Image, error) {
	i := &localImage{objects: objects, built: map[digest.Digest]image.Layer{}, tell: tell, sent: sent}
	var err error
	if i.manifest, err = objects.ReadAll(manifest, maxManifest); err != nil {
		return nil, err
	}
	if i.doc, err = parseDocument(i.manifest, ""); err != nil {
		return nil, fault.New(fault.Refused, "%s is no manifest: %w", manifest, err)
	}
	if isIndex(i.doc.MediaType) {
		return nil, fault.New(fault.Invalid, "%s is an index of several images", manifest).Mend("push one of the images that it names")
	}
	if m, err := image.ParseManifest(i.manifest); err == nil {
		for _, l := range m.Layers {
			i.built[l.Digest] = l
		}
	}
	if i.config, err = objects.ReadAll(i.doc.Blobs[0].Digest, image.ManifestLimit); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(i)
}

func (i *localImage) MediaType() (types.MediaType, error) {
	return types.MediaType(i.doc.MediaType), nil
}
func (i *localImage) RawManifest() ([]byte, error)   { return i.manifest, nil }
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
	if b, ok := l.i.built[l.digest]; ok && !l.i.objects.Has(l.digest) {
		r, err = LayerReader(l.i.objects, b)
	} else {
		r, err = stored(l.i.objects, l.digest, l.digest).open()
	}
	if err != nil {
		return nil, err
	}
	return &counted{ReadCloser: r, m: Moved{What: short(l.digest), Total: l.size}, tell: l.i.tell, sum: l.i.sent}, nil
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
