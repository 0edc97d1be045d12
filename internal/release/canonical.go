package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// MaxSize is the largest release document, in bytes. File contents are objects,
// never part of the document, so a real one is a few kilobytes.
const MaxSize = 4 << 20

// Canonical gives the document's bytes: JSON in the canonical form of RFC 8785
// (https://www.rfc-editor.org/rfc/rfc8785). A release that Validate refuses has
// none.
func (r Release) Canonical() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	doc, err := canonicalJSON(r)
	if err != nil {
		return nil, err
	}
	if len(doc) > MaxSize {
		return nil, tooLarge(len(doc))
	}
	return doc, nil
}

// Digest is the release's name: the SHA-256 of Canonical.
func (r Release) Digest() (digest.Digest, error) {
	doc, err := r.Canonical()
	if err != nil {
		return "", err
	}
	return digest.FromBytes(doc), nil
}

// Parse reads a document that Canonical wrote. It accepts no other bytes: an
// unknown key, another order, white space or a value that Validate refuses is a
// fault, so that one release has exactly one digest.
func Parse(doc []byte) (Release, error) {
	if len(doc) > MaxSize {
		return Release{}, tooLarge(len(doc))
	}
	var r Release
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Release{}, fault.New(fault.Invalid, "release document: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Release{}, fault.New(fault.Invalid, "release document: something follows the end of the document")
	}
	canonical, err := r.Canonical()
	if err != nil {
		return Release{}, err
	}
	if !bytes.Equal(doc, canonical) {
		return Release{}, fault.New(fault.Refused, "release document is not in canonical form (RFC 8785)").
			Detail(fmt.Sprintf("its canonical form differs from byte %d on", firstDifference(doc, canonical)))
	}
	return r, nil
}

// Digest names what an instance is: the SHA-256 of the spec's canonical JSON.
// Instances of equal digest are interchangeable.
func (s Spec) Digest() digest.Digest {
	doc, err := canonicalJSON(s)
	if err != nil {
		panic(fmt.Sprintf("release: a spec that has no JSON: %v", err)) // it has only strings, integers and maps of them
	}
	return digest.FromBytes(doc)
}

func canonicalJSON(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("release document: %w", err)
	}
	doc, err := jcs.Transform(raw)
	if err != nil {
		return nil, fmt.Errorf("release document: %w", err)
	}
	return doc, nil
}

func tooLarge(n int) error {
	return fault.New(fault.Invalid, "release document has %d bytes; the limit is %d", n, MaxSize)
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
