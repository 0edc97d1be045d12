package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gowebpki/jcs"
)

// MaxLeaf is the largest leaf, in bytes: bundles of entries give lengths two bytes.
const MaxLeaf = 1<<16 - 1

// Validate says whether the entry can be in a record: it says what and who.
func (e Entry) Validate() error {
	if e.Index < 0 || e.Kind == "" || e.Actor == "" {
		return fmt.Errorf("record: entry %d of kind %q by %q: an entry has an index, a kind and an actor", e.Index, e.Kind, e.Actor)
	}
	return nil
}

// Leaf gives the entry's bytes in the record: JSON in the canonical form of
// RFC 8785 (https://www.rfc-editor.org/rfc/rfc8785), its time in UTC. Text that is
// not UTF-8 is carried with U+FFFD in the place of what is wrong.
func (e Entry) Leaf() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	e.Time = e.Time.UTC()
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("record: entry %d: %w", e.Index, err)
	}
	leaf, err := jcs.Transform(raw)
	if err != nil {
		return nil, fmt.Errorf("record: entry %d: %w", e.Index, err)
	}
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("record: entry %d has %d bytes; the limit is %d", e.Index, len(leaf), MaxLeaf)
	}
	return leaf, nil
}

// statementHead is how the leaf of a signed statement begins: what Rekor v2 has in
// its logs, in canonical JSON (package trust makes and checks it).
var statementHead = []byte(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":`)

// IsStatement says whether a leaf is not an Entry but a signed statement, in the form
// that others' verifiers look for. The entry after it tells of it.
func IsStatement(leaf []byte) bool {
	if !bytes.HasPrefix(leaf, statementHead) || len(leaf) > MaxLeaf {
		return false
	}
	canonical, err := jcs.Transform(leaf)
	return err == nil && bytes.Equal(canonical, leaf)
}

// ParseLeaf reads what Leaf wrote and refuses all other bytes.
func ParseLeaf(leaf []byte) (Entry, error) {
	if len(leaf) > MaxLeaf {
		return Entry{}, fmt.Errorf("record: a leaf has %d bytes; the limit is %d", len(leaf), MaxLeaf)
	}
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(leaf))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Entry{}, fmt.Errorf("record: a leaf is not an entry: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Entry{}, fmt.Errorf("record: something follows the entry of a leaf")
	}
	canonical, err := e.Leaf()
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(leaf, canonical) {
		return Entry{}, fmt.Errorf("record: the leaf of entry %d is not in canonical form (RFC 8785)", e.Index)
	}
	return e, nil
}
