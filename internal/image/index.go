package image

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is one artifact of an index: the same component for one architecture.
type Platform struct {
	Architecture string // GOARCH; the operating system is linux
	Manifest     digest.Digest
	Size         int64 // of the manifest, bytes
}

// AssembleIndex makes the OCI index of a component's artifacts, a pure function of its
// argument.
func AssembleIndex(platforms []Platform) ([]byte, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, p := range platforms {
		if !sha256Digest(p.Manifest) || p.Architecture == "" || p.Size < 0 {
			return nil, fmt.Errorf("assemble an index: %s %s, %d bytes", p.Architecture, p.Manifest, p.Size)
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: p.Manifest, Size: p.Size,
			Platform: &ocispec.Platform{Architecture: p.Architecture, OS: "linux"},
		})
	}
	return json.Marshal(index)
}

// ParseIndex reads what AssembleIndex made. Other bytes are not ok.
func ParseIndex(b []byte) (platforms []Platform, ok bool) {
	var index ocispec.Index
	if err := strictJSON(b, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		return nil, false
	}
	for _, d := range index.Manifests {
		if d.Platform == nil {
			return nil, false
		}
		platforms = append(platforms, Platform{d.Platform.Architecture, d.Digest, d.Size})
	}
	if again, err := AssembleIndex(platforms); err != nil || string(again) != string(b) {
		return nil, false
	}
	return platforms, true
}
