package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Kinds of references. Garbage collection follows what their objects name.
const (
	inputRef = "image-input" // hex of a manifest to itself: the image as it was taken in
	layerRef = "image-layer" // hex of a layer's digest to what it holds
)

// layerFormat is raised when the same tar would give another layer.
const layerFormat = 1

// unpacked is what a layer holds, as it is remembered under the layer's digest.
type unpacked struct {
	Format  int           `json:"format"`
	DiffID  digest.Digest `json:"diff_id"` // of the tar that it was read from
	Tree    digest.Digest `json:"tree"`    // object: its entries, with the directories that lead to them
	Implied []string      `json:"implied"` // those of the directories that the layer does not have
	Removed []string      `json:"removed"`
	Opaque  []string      `json:"opaque"`
	Links   []hardLink    `json:"links"`
}

// keepLayer adds a layer to the batch, under the digest of its blob.
func keepLayer(batch *object.Batch, blob, diffID digest.Digest, l layer) error {
	u := unpacked{Format: layerFormat, DiffID: diffID, Removed: l.removed, Opaque: l.opaque, Links: l.links}
	t := image.Tree{Entries: l.entries}
	whole := t.WithParents(0)
	for _, e := range whole.Entries {
		if _, ok := t.Lookup(e.Path); !ok {
			u.Implied = append(u.Implied, e.Path)
		}
	}
	if err := whole.Validate(); err != nil {
		return refused("its files are no tree: %w", err)
	}
	var err error
	if u.Tree, err = batch.PutBytes(whole.Marshal()); err != nil {
		return err
	}
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	d, err := batch.PutBytes(b)
	if err != nil {
		return err
	}
	return batch.SetRef(layerRef, blob.Encoded(), d)
}

// knownLayer gives a layer that was unpacked before, if everything of it is on hand.
func knownLayer(store *object.Store, blob digest.Digest) (l layer, diffID digest.Digest, ok bool) {
	d, err := store.Ref(layerRef, blob.Encoded())
	if err != nil {
		return layer{}, "", false
	}
	var u unpacked
	if b, err := store.ReadAll(d, image.TreeLimit); err != nil || json.Unmarshal(b, &u) != nil || u.Format != layerFormat {
		return layer{}, "", false
	}
	b, err := store.ReadAll(u.Tree, image.TreeLimit)
	if err != nil {
		return layer{}, "", false
	}
	t, err := image.UnmarshalTree(b)
	if err != nil || !onHand(store, t) {
		return layer{}, "", false
	}
	_ = store.TouchRef(layerRef, blob.Encoded()) // at worst it is collected early and unpacked again
	t.Entries = slices.DeleteFunc(t.Entries, func(e image.Entry) bool {
		_, implied := slices.BinarySearch(u.Implied, e.Path)
		return implied
	})
	return layer{t.Entries, u.Removed, u.Opaque, u.Links}, u.DiffID, true
}

func onHand(store *object.Store, t image.Tree) bool {
	var files []digest.Digest
	for _, e := range t.Entries {
		if e.Type == image.File {
			files = append(files, e.Digest)
		}
	}
	return len(store.Missing(files)) == 0
}

// noteUse keeps an image from garbage collection for another while.
func noteUse(store *object.Store, manifest digest.Digest) error {
	err := store.TouchRef(inputRef, manifest.Encoded())
	if errors.Is(err, fs.ErrNotExist) {
		return store.SetRef(inputRef, manifest.Encoded(), manifest)
	}
	return err
}
