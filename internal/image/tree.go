// Package image describes what an artifact is made of, as pure values: the file
// tree of a layer, its deterministic tar, and the OCI manifest and configuration
// over it. It does no I/O of its own; file bytes are named by digest and
// fetched through [Opener].
//
// An artifact's layers are uncompressed tars (the OCI media type
// application/vnd.oci.image.layer.v1.tar), so a layer's digest is its DiffID and
// no compressor version can change what an artifact is called. A layer's tar is
// never stored: it is written on demand from its [Tree] and the objects, which
// is why a one-line change costs one object and not one layer.
//
// Start at [Tree].
package image

import (
	"io"

	"github.com/opencontainers/go-digest"
)

// Type is the kind of a tree entry. Devices, sockets and pipes have no place in
// an artifact and cannot be expressed.
type Type string

// The entry types. A hard link is expressed as a second File with the same digest.
const (
	Dir     Type = "dir"
	File    Type = "file"
	Symlink Type = "symlink"
)

// Entry is one member of a file tree.
type Entry struct {
	Path   string            `json:"path"`             // slash-separated, clean, relative to the root, no leading slash; "." is the root itself
	Type   Type              `json:"type"`             //
	Mode   uint32            `json:"mode"`             // permission, set-id and sticky bits: 0 to 07777
	UID    int               `json:"uid,omitempty"`    //
	GID    int               `json:"gid,omitempty"`    //
	MTime  int64             `json:"mtime,omitempty"`  // seconds since the epoch
	Size   int64             `json:"size,omitempty"`   // bytes, of a File
	Digest digest.Digest     `json:"digest,omitempty"` // SHA-256 of a File's bytes, also when it is empty
	Link   string            `json:"link,omitempty"`   // target of a Symlink, as written
	Xattrs map[string]string `json:"xattrs,omitempty"` // name to raw value
}

// Tree is a complete file tree: sorted by Path bytewise, no duplicates, every
// entry's parent directories present, the root "." first.
type Tree struct {
	Entries []Entry `json:"entries"`
}

// Opener gives the bytes of an object by digest. The error for an unknown digest
// satisfies errors.Is(err, fs.ErrNotExist).
type Opener interface {
	Open(d digest.Digest) (io.ReadCloser, error)
}
