package oci

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// The media types of Docker that mean the same as OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// document is what an index and a manifest have in common, and what tells them apart.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
}

func (d document) isIndex() bool { return d.Manifests != nil || d.MediaType == dockerIndex }

// parseDocument reads an index or a manifest; what names it is for errors.
func parseDocument(b []byte, what string) (document, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return d, refused("%s is not an image manifest or index: %w", what, err)
	}
	switch {
	case d.SchemaVersion != 2:
		return d, refused("%s has schema version %d, not 2", what, d.SchemaVersion)
	case d.Manifests != nil && (d.Config != nil || d.Layers != nil):
		return d, refused("%s is a manifest and an index at once", what)
	case d.isIndex() && d.MediaType != "" && d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != dockerIndex,
		!d.isIndex() && d.MediaType != "" && d.MediaType != ocispec.MediaTypeImageManifest && d.MediaType != dockerManifest:
		return d, refused("%s has the media type %s, which it is not", what, clip(d.MediaType))
	case len(d.Manifests) > maxIndexed:
		return d, refused("%s names %d manifests, more than %d", what, len(d.Manifests), maxIndexed)
	}
	for _, m := range d.Manifests {
		if err := checkDescriptor(m, "a manifest of "+what, manifestLimit); err != nil {
			return d, err
		}
	}
	return d, nil
}

// checkImage checks the claims of a manifest that need no other bytes.
func (d document) checkImage(what string) error {
	switch {
	case d.Config == nil:
		return refused("%s has no configuration: it is not an image", what)
	case d.ArtifactType != "" || d.Config.MediaType != ocispec.MediaTypeImageConfig && d.Config.MediaType != dockerConfig:
		return refused("%s is not an image but %s", what, clip(d.ArtifactType+" "+d.Config.MediaType))
	case len(d.Layers) > maxLayers:
		return refused("%s has %d layers, more than %d", what, len(d.Layers), maxLayers)
	}
	if err := checkDescriptor(*d.Config, "the configuration of "+what, manifestLimit); err != nil {
		return err
	}
	for i, l := range d.Layers {
		if err := checkDescriptor(l, fmt.Sprintf("layer %d of %s", i+1, what), blobLimit); err != nil {
			return err
		}
		if !layerType(l.MediaType) {
			return refused("layer %d of %s has the media type %s, which is not that of a layer", i+1, what, clip(l.MediaType)).
				Mend("save the image with layers as tar, tar+gzip or tar+zstd")
		}
	}
	return nil
}

func layerType(t string) bool {
	base, suffix, _ := strings.Cut(t, "+")
	switch base {
	case dockerLayer + ".gzip", dockerLayer + ".zstd", dockerLayer:
		return suffix == ""
	case ocispec.MediaTypeImageLayer:
		return suffix == "" || suffix == "gzip" || suffix == "zstd"
	}
	return false
}

func checkDescriptor(d ocispec.Descriptor, what string, limit int64) error {
	if _, ok := image.Hex(d.Digest); !ok {
		return notSHA256(what+" has the digest", d.Digest)
	}
	if d.Size < 0 || d.Size > limit {
		return refused("%s has %d bytes; at most %d are read", what, d.Size, limit)
	}
	return nil
}

// notSHA256 is the fault for a digest that no object is named by. SHA-512 is as good, and
// nothing but a name: the same image has names of SHA-256 as soon as it is copied.
func notSHA256(what string, d digest.Digest) error {
	f := refused("%s %s, which is not a SHA-256", what, clip(string(d)))
	if strings.HasPrefix(string(d), string(digest.SHA512)+":") {
		f = f.Mend("copy the image, which names everything by SHA-256:  skopeo copy SOURCE docker-archive:image.tar")
	}
	return f
}

// parseConfig reads an image's configuration and checks that it is of the manifest:
// one DiffID for each layer.
func parseConfig(b []byte, layers int) (ocispec.Image, error) {
	var c ocispec.Image
	if err := json.Unmarshal(b, &c); err != nil {
		return c, refused("the image's configuration cannot be read: %w", err)
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) != layers {
		return c, refused("the image's configuration has %d DiffIDs of type %s, its manifest %d layers", len(c.RootFS.DiffIDs), clip(c.RootFS.Type), layers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if _, ok := image.Hex(d); !ok {
			return c, notSHA256(fmt.Sprintf("DiffID %d of the image is", i+1), d)
		}
	}
	return c, nil
}

// dockerImage makes the manifest that an image of a `docker save` archive lacks.
func dockerImage(config []byte, layers []ocispec.Descriptor) ([]byte, error) {
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    layers,
	}
	m.SchemaVersion = 2
	return json.Marshal(m)
}
