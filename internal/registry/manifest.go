package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// Media types of Docker's own manifests, which OCI's are made after
// (https://distribution.github.io/distribution/spec/manifest-v2-2/).
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Bounds of what is believed of a manifest.
const (
	maxManifest    = image.ManifestLimit // bytes
	maxDescriptors = 10000               // blobs and manifests of one manifest
	maxDepth       = 32                  // of nested JSON
	maxType        = 255                 // bytes of a media type
)

// document is a manifest or an index, as far as a registry looks into it.
type document struct {
	Size         int64 // bytes
	MediaType    string
	ArtifactType string // of the manifest, else of its configuration; empty for an index without one
	Annotations  map[string]string
	Subject      *ocispec.Descriptor
	Blobs        []ocispec.Descriptor // configuration and layers that have to be here
	Foreign      []ocispec.Descriptor // layers that are to be fetched elsewhere
	Manifests    []ocispec.Descriptor // of an index
}

// isIndex says whether a media type is that of a list of manifests.
func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}

// wire is both kinds of document at once. Which fields are there tells the kind.
type wire struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType"`
	ArtifactType  string                `json:"artifactType"`
	Config        *ocispec.Descriptor   `json:"config"`
	Layers        *[]ocispec.Descriptor `json:"layers"`
	Manifests     *[]ocispec.Descriptor `json:"manifests"`
	Blobs         json.RawMessage       `json:"blobs"`
	FSLayers      json.RawMessage       `json:"fsLayers"`
	Subject       *ocispec.Descriptor   `json:"subject"`
	Annotations   map[string]string     `json:"annotations"`
}

// parseDocument reads a manifest of a kind that is known, OCI's or Docker's. What
// different readers would take for different things is refused: keys that stand
// twice or differ in case alone, and a document that is a manifest and an index at
// once (CVE-2021-41190). contentType is what the sender says it is; with an empty one
// the document has to say itself, or to be OCI's.
//
// https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md and image-index.md
func parseDocument(raw []byte, contentType string) (document, error) {
	if len(raw) > maxManifest {
		return document{}, fmt.Errorf("it has %d bytes, %d are allowed", len(raw), maxManifest)
	}
	if err := distinctKeys(json.NewDecoder(bytes.NewReader(raw)), 0); err != nil {
		return document{}, err
	}
	var w wire
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&w); err != nil {
		return document{}, fmt.Errorf("it is not the JSON of a manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return document{}, errors.New("something follows it")
	}
	index := w.Manifests != nil
	switch {
	case w.SchemaVersion != 2:
		return document{}, fmt.Errorf("its schemaVersion is %d, want 2", w.SchemaVersion)
	case index && (w.Config != nil || w.Layers != nil):
		return document{}, errors.New("it is a manifest and an index at once")
	case w.Blobs != nil || w.FSLayers != nil:
		return document{}, errors.New("it has blobs or fsLayers, which are of other kinds of manifests")
	case !index && (w.Config == nil || w.Layers == nil):
		return document{}, errors.New("it has neither config and layers nor manifests")
	case len(w.ArtifactType) > maxType:
		return document{}, errors.New("its artifactType is too long")
	}
	d := document{Size: int64(len(raw)), ArtifactType: w.ArtifactType, Annotations: w.Annotations, Subject: w.Subject}
	var err error
	if d.MediaType, err = w.mediaType(contentType, index); err != nil {
		return document{}, err
	}
	if index {
		d.Manifests = *w.Manifests
	} else {
		if d.ArtifactType == "" {
			d.ArtifactType = w.Config.MediaType
		}
		d.Blobs = append(d.Blobs, *w.Config)
		for _, l := range *w.Layers {
			if foreign(l) {
				d.Foreign = append(d.Foreign, l)
			} else {
				d.Blobs = append(d.Blobs, l)
			}
		}
	}
	return d, d.check()
}

// mediaType is what the document is, if everybody agrees.
func (w wire) mediaType(contentType string, index bool) (string, error) {
	kind := w.MediaType
	if contentType != "" {
		plain, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return "", fmt.Errorf("the content type %.100q cannot be read", contentType)
		}
		if kind != "" && kind != plain {
			return "", fmt.Errorf("it says that it is %.100q, and was sent as %.100q", kind, plain)
		}
		kind = plain
	}
	if kind == "" && index {
		kind = ocispec.MediaTypeImageIndex
	} else if kind == "" {
		kind = ocispec.MediaTypeImageManifest
	}
	switch kind {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex:
	case dockerManifest, dockerManifestList:
		if w.MediaType == "" {
			return "", errors.New("a manifest of Docker's has to say its mediaType itself")
		}
	default:
		return "", fmt.Errorf("the media type %.100q is not known; known are the manifests and indexes of OCI, and of Docker's version 2", kind)
	}
	if isIndex(kind) != index {
		return "", fmt.Errorf("it is not what its media type says, %s", kind)
	}
	return kind, nil
}

// check looks at every descriptor.
func (d document) check() error {
	if n := len(d.Blobs) + len(d.Foreign) + len(d.Manifests); n > maxDescriptors {
		return fmt.Errorf("it names %d blobs and manifests, %d are allowed", n, maxDescriptors)
	}
	for _, list := range [][]ocispec.Descriptor{d.Blobs, d.Foreign, d.Manifests} {
		for _, x := range list {
			if err := checkDescriptor(x); err != nil {
				return err
			}
		}
	}
	if d.Subject != nil {
		return checkDescriptor(*d.Subject)
	}
	return nil
}

func checkDescriptor(x ocispec.Descriptor) error {
	dig, ok := parseDigest(string(x.Digest))
	switch {
	case !ok:
		return fmt.Errorf("%.150q in it is not a SHA-256 or SHA-512 digest", string(x.Digest))
	case x.Size < 0:
		return fmt.Errorf("the size of %s is %d", dig, x.Size)
	case x.MediaType == "" || len(x.MediaType) > maxType:
		return fmt.Errorf("%s has no media type, or one of more than %d bytes", dig, maxType)
	case x.Data != nil && (int64(len(x.Data)) != x.Size || dig.Algorithm().FromBytes(x.Data) != dig):
		return fmt.Errorf("the data beside %s is not what the digest says", dig)
	}
	return nil
}

// foreign says whether a layer is one that registries need not have.
func foreign(l ocispec.Descriptor) bool {
	return strings.HasPrefix(l.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		l.MediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

// known are the keys that are read, of manifests and of descriptors in them.
var known = []string{
	"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "fsLayers", "subject", "annotations",
	"digest", "size", "data", "urls", "platform",
}

// distinctKeys refuses objects with a key that stands twice, or that is a known one but
// for its case: Go would read it, and other languages would not.
func distinctKeys(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > maxDepth {
		return errors.New("it nests too deep")
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			key, err := dec.Token()
			if err != nil {
				return fmt.Errorf("it is not JSON: %w", err)
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("the key %.60q stands twice in it", name)
			}
			if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, name) }); i >= 0 && known[i] != name {
				return fmt.Errorf("the key %.60q in it has to be %q", name, known[i])
			}
			seen[name] = true
		}
		if err := distinctKeys(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err = dec.Token(); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	return nil
}

// descriptor is how a list of referrers or an index tells of the document.
func (d document) descriptor(name digest.Digest) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: name, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations}
}
