package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/inflate"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Image is an image that was taken in.
type Image struct {
	Manifest digest.Digest
	Size     int64               // of the manifest, bytes
	Config   ocispec.ImageConfig // what the image says about running it
	Tree     image.Tree          // of all its layers
	Layers   []digest.Digest     // as the manifest names them, bottom first
	Reused   bool                // every layer had been unpacked before
}

// Unpack gives the image that q.Digest names by its manifest. What the object store
// lacks of it is taken from q.Path; with everything on hand, that is not looked at.
// Every digest, size and DiffID is compared. After an error nothing of the image is in
// the store.
func Unpack(ctx context.Context, store *object.Store, q Request) (Image, error) {
	u := &unpacking{store: store, batch: store.NewBatch(), request: q}
	defer u.batch.Discard()
	img, err := u.image(ctx)
	if u.place != nil {
		err = errors.Join(err, u.place.place.Close())
	}
	if ctx.Err() != nil {
		return Image{}, ctx.Err()
	}
	if err != nil {
		return Image{}, atPath(err, q.Path)
	}
	if err := u.batch.Commit(); err != nil {
		return Image{}, err
	}
	return img, noteUse(store, q.Digest)
}

// unpacking is one image on its way into the store.
type unpacking struct {
	store   *object.Store
	batch   *object.Batch
	request Request
	place   *found // where it is taken from, once that is open
}

func (u *unpacking) image(ctx context.Context) (Image, error) {
	manifest, err := u.manifest()
	if err != nil {
		return Image{}, err
	}
	doc, err := parseDocument(manifest, "manifest "+u.request.Digest.String())
	if err != nil {
		return Image{}, err
	}
	if err := doc.checkImage("manifest " + u.request.Digest.String()); err != nil {
		return Image{}, err
	}
	raw, err := u.config(*doc.Config)
	if err != nil {
		return Image{}, err
	}
	config, err := parseConfig(raw, len(doc.Layers))
	if err != nil {
		return Image{}, err
	}
	if config.OS != "linux" || config.Architecture != u.request.Arch {
		return Image{}, refused("the image is for %s, not for linux/%s", clip(config.OS+"/"+config.Architecture), u.request.Arch)
	}
	img := Image{Manifest: u.request.Digest, Size: int64(len(manifest)), Config: config.Config}
	return img, u.layers(ctx, &img, doc.Layers, config.RootFS.DiffIDs)
}

// manifest gives the manifest, from the store or from where the image is.
func (u *unpacking) manifest() ([]byte, error) {
	b, err := u.store.ReadAll(u.request.Digest, manifestLimit)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	f, err := u.source()
	if err != nil {
		return nil, err
	}
	_, err = u.batch.PutBytes(f.manifest)
	return f.manifest, err
}

// source opens the place that the image is taken from.
func (u *unpacking) source() (*found, error) {
	if u.place != nil {
		return u.place, nil
	}
	p, err := openPlace(u.request.Path)
	if err != nil {
		return nil, err
	}
	q := u.request
	q.Tag = "" // the digest says it
	f, err := find(p, q)
	if err == nil && f.name != u.request.Digest {
		err = refused("the image is %s, not %s", f.name, u.request.Digest)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	u.place = &f
	return u.place, nil
}

func (u *unpacking) config(d ocispec.Descriptor) ([]byte, error) {
	b, err := u.store.ReadAll(d.Digest, manifestLimit)
	if errors.Is(err, fs.ErrNotExist) {
		if err := u.bring(d, "the configuration"); err != nil {
			return nil, err
		}
		b, err = u.batch.ReadAll(d.Digest, manifestLimit)
	}
	if err != nil {
		return nil, err
	}
	return b, compare(b, d, "the configuration")
}

// bring takes a blob into the batch, compared with what names it.
func (u *unpacking) bring(d ocispec.Descriptor, what string) error {
	if u.store.Has(d.Digest) {
		return nil
	}
	f, err := u.source()
	if err != nil {
		return err
	}
	name, ok := f.files[d.Digest]
	if !ok {
		name = blobName(d.Digest)
	}
	r, size, err := f.place.open(name)
	if err != nil {
		return missing(name, err)
	}
	defer r.Close()
	if size != d.Size {
		return refused("%s %s has %d bytes, not %d as is said of it", what, d.Digest, size, d.Size)
	}
	n, err := u.batch.PutVerified(r, d.Digest, d.Size)
	if err != nil {
		return within(what, err)
	}
	if n != d.Size {
		return refused("%s %s has %d bytes, not %d as is said of it", what, d.Digest, n, d.Size)
	}
	return nil
}

// within says which part of an image a fault is about.
func within(what string, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return fmt.Errorf("%s of the image: %w", what, err)
	}
	c := *f
	c.What = what + " of the image: " + c.What
	return &c
}

// Blobs are the objects that an image in the store is made of: manifest, configuration
// and layers. All of them are on hand.
func Blobs(store *object.Store, manifest digest.Digest) ([]digest.Digest, error) {
	raw, err := store.ReadAll(manifest, manifestLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []digest.Digest
	if err == nil {
		doc, err := parseDocument(raw, "manifest "+manifest.String())
		if err == nil {
			err = doc.checkImage("manifest " + manifest.String())
		}
		if err != nil {
			return nil, err
		}
		out = append(out, manifest, doc.Config.Digest)
		for _, l := range doc.Layers {
			out = append(out, l.Digest)
		}
	}
	if err != nil || len(store.Missing(out)) > 0 {
		return nil, fault.New(fault.NotFound, "the image %s is not on hand whole", manifest).Mend("fetch it:  ashlar build")
	}
	return out, nil
}

// layers brings, reads and lays all layers.
func (u *unpacking) layers(ctx context.Context, img *Image, blobs []ocispec.Descriptor, diffIDs []digest.Digest) error {
	for i, d := range blobs { // the place is opened once, by one
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.bring(d, layerName(i)); err != nil {
			return err
		}
	}
	layers := make([]layer, len(blobs))
	reused := make([]bool, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, d := range blobs {
		g.Go(func() (err error) {
			layers[i], reused[i], err = u.layer(ctx, d, diffIDs[i])
			return within(layerName(i), err)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s := newStack()
	img.Reused = true
	for i, l := range layers {
		img.Layers = append(img.Layers, blobs[i].Digest)
		img.Reused = img.Reused && reused[i]
		if err := s.apply(l); err != nil {
			return within(layerName(i), err)
		}
	}
	var err error
	img.Tree, err = s.tree()
	return err
}

func layerName(i int) string { return fmt.Sprintf("layer %d", i+1) }

// layer gives what a layer holds, from what is remembered of it or from its bytes.
func (u *unpacking) layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (layer, bool, error) {
	if l, is, ok := knownLayer(u.store, d.Digest); ok {
		return l, true, sameDiffID(is, diffID)
	}
	r, err := u.batch.Open(d.Digest)
	if err != nil {
		return layer{}, false, err
	}
	defer r.Close()
	l, is, err := u.read(ctx, r)
	if err != nil {
		return layer{}, false, err
	}
	if err := sameDiffID(is, diffID); err != nil {
		return layer{}, false, err
	}
	return l, false, keepLayer(u.batch, d.Digest, is, l)
}

func sameDiffID(is, want digest.Digest) error {
	if is == want {
		return nil
	}
	return refused("its tar is not the one that the configuration names by DiffID").
		Detail("DiffID: "+want.String(), "got:    "+is.String())
}

// read reads a layer to its very end, so that its DiffID and the compressor's checksum
// are of all of it.
func (u *unpacking) read(ctx context.Context, r io.Reader) (layer, digest.Digest, error) {
	head := make([]byte, 6)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return layer{}, "", err
	}
	whole := io.MultiReader(strings.NewReader(string(head[:n])), until{ctx, r})
	ext := inflate.Sniff(head[:n])
	if ext == ".xz" {
		return layer{}, "", refused("it is compressed with xz, which layers are not")
	}
	body, err := inflate.Reader(whole, ext, layerLimit)
	if err != nil {
		return layer{}, "", refused("%w", err)
	}
	defer body.Close()
	sum := digest.SHA256.Digester()
	in := io.TeeReader(body, sum.Hash())
	l, err := readLayer(in, u.batch)
	if err != nil {
		return layer{}, "", err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return layer{}, "", refused("it cannot be read to its end: %w", err)
	}
	return l, sum.Digest(), nil
}

// until ends a long reading with its context.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
