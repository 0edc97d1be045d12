// Package oci takes in images that others made: it finds an image in an OCI layout,
// an oci-archive or a `docker save` archive, brings its blobs into the object store,
// and makes one [image.Tree] of its layers.
//
//	layout, archive -> index -> manifest -> config, layers   (every digest and size)
//	layers -> tar -> DiffID -> entries, whiteouts -> image.Tree
//
// An image is named by the digest of its manifest. What an archive of Docker lacks,
// a manifest, is made for it: its layers as they are and its configuration, in one
// form, so that the same archive always has the same name.
//
// Nothing is believed before it was compared with the digest that names it, nothing
// is written but objects, and no path of an archive is ever one of this machine. What
// cannot be said in an image.Tree is refused, never left out: devices, pipes, sparse
// files, names that are not UTF-8. Two things are changed: times before 1970
// become 1970, and times lose what is finer than a second.
//
// The formats are those of the OCI image specification 1.1 (image-layout, manifest,
// image-index, config, layer), https://github.com/opencontainers/image-spec/tree/v1.1.1,
// their Docker namesakes, and Docker's image specification 1.2 for `docker save`.
//
// Start at [Bring] and [Unpack]. TestHostile is the table of what is refused;
// TestSkopeo takes what other people's tools wrote.
package oci

import (
	"fmt"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Limits of an image. Large real ones have about 100 layers and 300,000 entries.
const (
	manifestLimit = 4 << 20  // bytes of an index, a manifest or a configuration
	maxMembers    = 20_000   // of an archive that holds an image
	maxIndexed    = 10_000   // manifests that all indexes name together
	maxNesting    = 4        // of indexes in indexes
	maxLayers     = 512      // of an image
	blobLimit     = 16 << 30 // bytes of a layer as it is stored
	layerLimit    = 32 << 30 // bytes of a layer's tar
	fileLimit     = 8 << 30  // bytes of one file
	maxEntries    = 500_000  // of a layer, and of a tree
)

// refused is the fault for an image that is not what it claims, or not what an image may be.
func refused(format string, args ...any) *fault.Error {
	return fault.New(fault.Refused, format, args...)
}

// clip makes text of an image fit for a message.
func clip(s string) string { return fmt.Sprintf("%.80q", s) }
