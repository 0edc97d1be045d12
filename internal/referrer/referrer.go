// Package referrer keeps statements beside what they are about, as OCI 1.1 has it: a
// manifest whose subject is the artifact, whose artifactType is the bundle's media
// type, and whose one layer is the bundle
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md, "subject").
// The official cosign finds them so in a registry.
//
// A reference of kind [Kind] leads from the subject to each of its referrers. It keeps
// both alive as long as the subject is; see package gc.
//
// It judges nothing: what a statement is worth is trust.Chain's to say. Start at
// [Attach] and [Of]; TestAttached shows what a registry would serve.
package referrer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Kind is the kind of the references. Their names are those that [Name] gives.
const Kind = "referrer"

// ReleaseType is the media type of a release document as the subject of a statement.
const ReleaseType = "application/vnd.ashlar.release.v1+json"

// Annotations by which cosign finds a bundle, and one by which we do.
const (
	contentAnnotation   = "dev.sigstore.bundle.content" // "dsse-envelope"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"
	keyAnnotation       = "dev.ashlar.key" // trust.KeyID, so that one need not read the bundle
)

// Referrer is one manifest that refers to a subject.
type Referrer struct {
	Manifest      digest.Digest
	Size          int64 // of the manifest, bytes
	ArtifactType  string
	Annotations   map[string]string
	Bundle        digest.Digest // its layer; empty if it is no bundle
	PredicateType string        // of the bundle's statement, as the manifest has it
	Key           trust.KeyID   // of the bundle, likewise
}

// Statement is a bundle with what it is about.
type Statement struct {
	About  digest.Digest // a manifest or a release document in the store
	Bundle []byte        // as trust.Bundle.Marshal spells it
}

// Attach stores bundles as referrers of a subject and gives their manifests. A bundle
// that is attached already is not attached again.
func Attach(store *object.Store, subject digest.Digest, bundles ...[]byte) ([]digest.Digest, error) {
	var all []Statement
	for _, b := range bundles {
		all = append(all, Statement{subject, b})
	}
	return AttachAll(store, all)
}

// AttachAll attaches statements about several subjects, durably together.
func AttachAll(store *object.Store, all []Statement) ([]digest.Digest, error) {
	batch := store.NewBatch()
	defer batch.Discard()
	subjects := map[digest.Digest]ocispec.Descriptor{}
	var out []digest.Digest
	for _, s := range all {
		if _, ok := subjects[s.About]; !ok {
			d, err := describe(store, s.About)
			if err != nil {
				return nil, err
			}
			subjects[s.About] = d
		}
		manifest, err := attach(batch, subjects[s.About], s.Bundle)
		if err != nil {
			return nil, err
		}
		out = append(out, manifest)
	}
	return out, batch.Commit()
}

// attach adds one referrer to a batch.
func attach(batch *object.Batch, subject ocispec.Descriptor, bundle []byte) (digest.Digest, error) {
	s, key, err := read(bundle)
	if err != nil {
		return "", err
	}
	if !s.About(subject.Digest) {
		return "", fault.New(fault.Invalid, "the statement is not about %s", subject.Digest)
	}
	layer, err := batch.PutBytes(bundle)
	if err != nil {
		return "", err
	}
	if _, err := batch.PutBytes(ocispec.DescriptorEmptyJSON.Data); err != nil {
		return "", err
	}
	config := ocispec.DescriptorEmptyJSON
	config.Data = nil
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: trust.BundleType,
		Config: config, Layers: []ocispec.Descriptor{{MediaType: trust.BundleType, Digest: layer, Size: int64(len(bundle))}}, Subject: &subject,
		Annotations: map[string]string{contentAnnotation: "dsse-envelope", predicateAnnotation: s.PredicateType, keyAnnotation: string(key)},
	})
	if err != nil {
		return "", err
	}
	manifest, err := batch.PutBytes(raw)
	if err != nil {
		return "", err
	}
	return manifest, batch.SetRef(Kind, Name(subject.Digest, manifest), manifest)
}

func read(bundle []byte) (trust.Statement, trust.KeyID, error) {
	b, err := trust.ParseBundle(bundle)
	if err != nil {
		return trust.Statement{}, "", fault.New(fault.Invalid, "%w", err)
	}
	s, err := trust.ParseStatement(b.Payload)
	if err != nil {
		return s, "", fault.New(fault.Invalid, "%w", err)
	}
	return s, b.Key, nil
}

// describe gives the descriptor of a subject. Its size has to be true: so it has to be
// in the store.
func describe(store *object.Store, d digest.Digest) (ocispec.Descriptor, error) {
	raw, err := store.ReadAll(d, image.ManifestLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Descriptor{}, fault.New(fault.NotFound, "what the statement is about is not stored: %s", d).Mend("build it, or fetch it, first")
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(raw, &head) != nil || head.MediaType == "" {
		head.MediaType = ReleaseType
	}
	return ocispec.Descriptor{MediaType: head.MediaType, Digest: d, Size: int64(len(raw))}, nil
}

// Name is the name of the reference from a subject to a manifest that refers to it.
func Name(subject, manifest digest.Digest) string {
	return subject.Encoded() + "-" + manifest.Encoded()
}

// Subject is what the reference of that name is about; empty if it is none.
func Subject(name string) digest.Digest {
	subject, manifest, _ := strings.Cut(name, "-")
	for _, part := range []string{subject, manifest} {
		if _, ok := image.Hex(digest.NewDigestFromEncoded(digest.SHA256, part)); !ok {
			return ""
		}
	}
	return digest.NewDigestFromEncoded(digest.SHA256, subject)
}

// Of gives what refers to a subject, sorted by digest. A referrer whose manifest is
// gone or damaged is passed over: it says nothing.
func Of(store *object.Store, subject digest.Digest) ([]Referrer, error) {
	refs, err := store.RefsOf(Kind, subject.Encoded()+"-")
	if err != nil {
		return nil, err
	}
	var out []Referrer
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		r, err := Read(store, refs[name], subject)
		if err != nil {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// Read reads the manifest of a referrer, which has to refer to the subject.
func Read(store *object.Store, manifest, subject digest.Digest) (Referrer, error) {
	raw, err := store.ReadAll(manifest, image.ManifestLimit)
	if err != nil {
		return Referrer{}, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return Referrer{}, err
	}
	if m.Subject == nil || m.Subject.Digest != subject {
		return Referrer{}, fault.New(fault.Refused, "%s refers to something else than %s", manifest, subject)
	}
	r := Referrer{Manifest: manifest, Size: int64(len(raw)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	if r.ArtifactType == "" {
		r.ArtifactType = m.Config.MediaType
	}
	if len(m.Layers) == 1 && m.Layers[0].MediaType == trust.BundleType {
		r.Bundle, r.PredicateType, r.Key = m.Layers[0].Digest, m.Annotations[predicateAnnotation], trust.KeyID(m.Annotations[keyAnnotation])
	}
	return r, nil
}

// Bundles reads the statements among referrers whose manifests say that predicate type;
// with an empty one all. What cannot be read is passed over.
func Bundles(store *object.Store, all []Referrer, predicateType string) [][]byte {
	var out [][]byte
	for _, r := range all {
		if r.Bundle == "" || predicateType != "" && r.PredicateType != predicateType {
			continue
		}
		if b, err := store.ReadAll(r.Bundle, trust.MaxBundle); err == nil {
			out = append(out, b)
		}
	}
	return out
}
