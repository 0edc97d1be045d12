package registry

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Catalog tells of the artifacts that Ashlar built. They are served without being
// copied: their layers are made when they are asked for.
type Catalog interface {
	// Artifacts gives the manifests by repository and tag. Callers do not change
	// what it returns. All its objects are in the store.
	Artifacts(ctx context.Context) (map[string]map[string]digest.Digest, error)
}

// noCatalog is that of a store without releases.
type noCatalog struct{}

func (noCatalog) Artifacts(context.Context) (map[string]map[string]digest.Digest, error) {
	return nil, nil
}

// maxBuilt is how many manifests of built artifacts are remembered.
const maxBuilt = 1024

// built is what Ashlar made: a cache of parsed manifests over the store.
type built struct {
	objects *object.Store
	mu      sync.Mutex
	parsed  map[digest.Digest]image.Manifest
}

// manifest reads a manifest of an artifact.
func (b *built) manifest(d digest.Digest) (image.Manifest, error) {
	b.mu.Lock()
	m, ok := b.parsed[d]
	b.mu.Unlock()
	if ok {
		return m, nil
	}
	raw, err := b.objects.ReadAll(d, image.ManifestLimit)
	if err != nil {
		return m, err
	}
	if m, err = image.ParseManifest(raw); err != nil {
		return m, fmt.Errorf("the artifact %s: %w", d, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.parsed) >= maxBuilt {
		clear(b.parsed)
	}
	b.parsed[d] = m
	return m, nil
}

// blob finds a configuration or layer of an artifact.
func (b *built) blob(manifest, d digest.Digest) (blob, bool, error) {
	m, err := b.manifest(manifest)
	if err != nil {
		return blob{}, false, err
	}
	if m.Config == d {
		return stored(b.objects, d, d), true, nil
	}
	for _, l := range m.Layers {
		if l.Digest == d {
			return blob{d, l.Size, func() (io.ReadSeekCloser, error) { return LayerReader(b.objects, l) }}, true, nil
		}
	}
	return blob{}, false, nil
}

// LayerReader reads the tar of a layer that Ashlar built, from its tree and objects.
func LayerReader(objects *object.Store, l image.Layer) (io.ReadSeekCloser, error) {
	raw, err := objects.ReadAll(l.Tree, image.TreeLimit)
	if err != nil {
		return nil, err
	}
	t, err := image.UnmarshalTree(raw)
	if err != nil {
		return nil, err
	}
	r, err := image.NewTarReader(t, objects)
	if err != nil {
		return nil, err
	}
	if r.Size() != l.Size {
		return nil, fault.New(fault.Refused, "the layer made from tree %s has %d bytes, the manifest says %d", l.Tree, r.Size(), l.Size)
	}
	return verified(r, l.Digest, l.Size), nil
}

// blob is content that can be opened.
type blob struct {
	digest digest.Digest // by which it was asked for
	size   int64         // bytes; -1 when the object is gone
	open   func() (io.ReadSeekCloser, error)
}

// stored is a blob that is an object.
func stored(objects *object.Store, d, obj digest.Digest) blob {
	size := sizeOf(objects, obj)
	return blob{d, size, func() (io.ReadSeekCloser, error) {
		r, err := objects.Open(obj)
		if err != nil {
			return nil, err
		}
		s, ok := r.(io.ReadSeekCloser)
		if !ok {
			return nil, fmt.Errorf("object %s cannot be read from the middle", obj)
		}
		return verified(s, obj, size), nil
	}}
}

// sizeOf is the size of an object, bytes; -1 when it is not there.
func sizeOf(objects *object.Store, d digest.Digest) int64 {
	path, err := objects.File(d)
	if err != nil {
		return -1
	}
	info, err := os.Lstat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}
