// Package seal makes sealed trees: an EROFS image that holds a file tree's
// metadata and, for every file, the name of the object with its bytes. The
// image's SHA-256 is the seal. It commits to every name, mode, owner, time,
// extended attribute and byte of the tree, and the kernel mounts it as it is:
//
//	EROFS image (metadata)     lower layer of an overlay mount; several may be stacked
//	D/objects (package object) data-only layer below them
//
// Each file in the image has two extended attributes that overlayfs follows:
// trusted.overlay.metacopy says that the bytes are elsewhere, and
// trusted.overlay.redirect that they are at /ab/cdef…. There is no upper layer,
// so there is no code path in the kernel that writes to a mounted tree.
//
// What this does not do: keep a privileged process on the host from writing to
// an object. [Verify] finds that; fs-verity, where the file system has it, would
// prevent it (see [Support]).
//
// Formats: https://docs.kernel.org/filesystems/erofs.html and
// https://docs.kernel.org/filesystems/overlayfs.html (data-only lower layers).
// TestMountedTreeIsTheTree compares whole mounted trees with what was sealed.
//
// Start at [Put] and [Mount].
package seal

import (
	"bytes"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Put seals t: it stores the metadata image and returns its digest, the seal.
// The objects of t's files must be stored before the seal is mounted.
func Put(s *object.Store, t image.Tree) (digest.Digest, error) {
	var b bytes.Buffer
	if err := Write(&b, t); err != nil {
		return "", err
	}
	return s.PutBytes(b.Bytes())
}

// PutBatch is Put into a batch that the caller commits, for instance together
// with the tree's objects.
func PutBatch(b *object.Batch, t image.Tree) (digest.Digest, error) {
	var buf bytes.Buffer
	if err := Write(&buf, t); err != nil {
		return "", err
	}
	return b.PutBytes(buf.Bytes())
}
