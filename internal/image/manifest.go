package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// TreeAnnotation, on a layer of a manifest, is the digest of the object that
// holds the layer's Tree.Marshal. The layer's tar is made from it on demand.
const TreeAnnotation = "dev.ashlar.tree"

// ManifestLimit is the largest manifest or configuration that is read, in bytes.
const ManifestLimit = 4 << 20

// TreeLimit is the largest encoded tree (Tree.Marshal) that is read, in bytes.
const TreeLimit = 256 << 20

// Layer is one layer of an artifact: an uncompressed tar that is named but never
// stored, and the tree that it is written from.
type Layer struct {
	Digest  digest.Digest `json:"digest"`            // SHA-256 of the tar; also its DiffID
	Size    int64         `json:"size"`              // of the tar, bytes
	Tree    digest.Digest `json:"tree"`              // of the object that holds the tree
	Comment string        `json:"comment,omitempty"` // what it was made from, for people: "go ./cmd/hello (go1.26.8)"
}

// Config is what an OCI runtime needs to know of an artifact besides its files.
// Nothing in it may depend on when, where or by whom it was built.
type Config struct {
	Architecture string   // GOARCH, e.g. amd64
	OS           string   // GOOS: linux
	User         string   // "uid:gid"
	Cmd          []string // argv
	Env          []string // NAME=value
	WorkDir      string   // absolute
	Port         int      // TCP; 0: none
	StopSignal   string   // e.g. SIGTERM
}

// Artifact is an assembled OCI image without its layers' bytes. The digest of
// Manifest is the artifact's name.
type Artifact struct {
	Manifest []byte // application/vnd.oci.image.manifest.v1+json
	Config   []byte // application/vnd.oci.image.config.v1+json
}

// Digest is the artifact's name.
func (a Artifact) Digest() digest.Digest { return digest.FromBytes(a.Manifest) }

// Manifest is a parsed manifest of ours.
type Manifest struct {
	Config      digest.Digest
	ConfigSize  int64
	Layers      []Layer // bottom first; Comment is empty, it lives in the configuration's history
	Annotations map[string]string
}

// epoch is the creation time in every configuration: an artifact has no birthday,
// or two builds of the same inputs would differ.
var epoch = time.Unix(0, 0).UTC()

// Assemble makes manifest and configuration of an artifact, a pure function of
// its arguments.
func Assemble(cfg Config, layers []Layer, annotations map[string]string) (Artifact, error) {
	if cfg.OS == "" || cfg.Architecture == "" {
		return Artifact{}, fmt.Errorf("assemble: no platform")
	}
	img := ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{Architecture: cfg.Architecture, OS: cfg.OS},
		Config: ocispec.ImageConfig{
			User: cfg.User, Cmd: cfg.Cmd, Env: cfg.Env, WorkingDir: cfg.WorkDir, StopSignal: cfg.StopSignal,
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	if cfg.Port != 0 {
		img.Config.ExposedPorts = map[string]struct{}{strconv.Itoa(cfg.Port) + "/tcp": {}}
	}
	man := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Layers:      []ocispec.Descriptor{},
		Annotations: annotations,
	}
	for _, l := range layers {
		if err := l.check(); err != nil {
			return Artifact{}, fmt.Errorf("assemble: %w", err)
		}
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.Digest)
		img.History = append(img.History, ocispec.History{Created: &epoch, CreatedBy: "ashlar build", Comment: l.Comment})
		man.Layers = append(man.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Digest: l.Digest, Size: l.Size,
			Annotations: map[string]string{TreeAnnotation: l.Tree.String()},
		})
	}
	config, err := json.Marshal(img)
	if err != nil {
		return Artifact{}, fmt.Errorf("assemble: %w", err)
	}
	man.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	manifest, err := json.Marshal(man)
	if err != nil {
		return Artifact{}, fmt.Errorf("assemble: %w", err)
	}
	return Artifact{Manifest: manifest, Config: config}, nil
}

// ParseManifest reads a manifest that Assemble made. It is strict: bytes that
// Assemble would not have written are refused, so that one artifact has one name.
func ParseManifest(b []byte) (Manifest, error) {
	var doc ocispec.Manifest
	if err := strictJSON(b, &doc); err != nil {
		return Manifest{}, refused("the manifest %w", err)
	}
	switch {
	case doc.SchemaVersion != 2 || doc.MediaType != ocispec.MediaTypeImageManifest:
		return Manifest{}, refused("the manifest is of another kind: schema %d, media type %q", doc.SchemaVersion, doc.MediaType)
	case doc.ArtifactType != "" || doc.Subject != nil:
		return Manifest{}, refused("the manifest is a referrer, not an artifact")
	case doc.Config.MediaType != ocispec.MediaTypeImageConfig || !sha256Digest(doc.Config.Digest) || doc.Config.Size < 0:
		return Manifest{}, refused("the manifest's configuration descriptor is not valid: %s %s", doc.Config.MediaType, doc.Config.Digest)
	}
	m := Manifest{Config: doc.Config.Digest, ConfigSize: doc.Config.Size, Annotations: doc.Annotations}
	for i, d := range doc.Layers {
		l := Layer{Digest: d.Digest, Size: d.Size, Tree: digest.Digest(d.Annotations[TreeAnnotation])}
		if d.MediaType != ocispec.MediaTypeImageLayer {
			return Manifest{}, refused("layer %d of the manifest has media type %q, want %q", i, d.MediaType, ocispec.MediaTypeImageLayer)
		}
		if err := l.check(); err != nil {
			return Manifest{}, refused("layer %d of the manifest: %w", i, err)
		}
		m.Layers = append(m.Layers, l)
	}
	return m, nil
}

// ParseConfig reads a configuration and checks it against the manifest that
// names it: digest, size, and one DiffID per layer in the same order.
func (m Manifest) ParseConfig(b []byte) (ocispec.Image, error) {
	var img ocispec.Image
	if got := digest.FromBytes(b); got != m.Config || int64(len(b)) != m.ConfigSize {
		return img, refused("the configuration is %s (%d bytes), the manifest names %s (%d bytes)", got, len(b), m.Config, m.ConfigSize)
	}
	if err := strictJSON(b, &img); err != nil {
		return img, refused("the configuration %w", err)
	}
	want := make([]digest.Digest, len(m.Layers))
	for i, l := range m.Layers {
		want[i] = l.Digest
	}
	if img.RootFS.Type != "layers" || !slices.Equal(img.RootFS.DiffIDs, want) {
		return img, refused("the configuration's DiffIDs %v are not the manifest's layers %v", img.RootFS.DiffIDs, want)
	}
	return img, nil
}

func (l Layer) check() error {
	switch {
	case !sha256Digest(l.Digest):
		return fmt.Errorf("%q is not a SHA-256 digest", l.Digest)
	case !sha256Digest(l.Tree):
		return fmt.Errorf("its tree (annotation %s) is %q, not a SHA-256 digest", TreeAnnotation, l.Tree)
	case l.Size < 0:
		return fmt.Errorf("its size is %d", l.Size)
	}
	return nil
}

func sha256Digest(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}

// strictJSON decodes b into v and insists that b is what v encodes to: no unknown
// or repeated key, no trailing data, no second spelling.
func strictJSON(b []byte, v any) error {
	if len(b) > ManifestLimit {
		return fmt.Errorf("has %d bytes, more than %d", len(b), ManifestLimit)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("is not valid: %w", err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return fmt.Errorf("is not in the form that Ashlar writes")
	}
	return nil
}

func refused(format string, args ...any) error { return fault.New(fault.Refused, format, args...) }
