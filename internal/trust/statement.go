package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxStatement is the largest statement that is read, in bytes: an SBOM of a large
// image.
const MaxStatement = 32 << 20

// StatementType is the type of statements: in-toto Statement v1,
// https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
const StatementType = "https://in-toto.io/Statement/v1"

// Statement says something about artifacts.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is one artifact.
type Subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"` // by algorithm, in hex
}

// NewStatement says something of a kind about one artifact. A predicate that is
// empty is {}.
func NewStatement(kind Kind, name string, about digest.Digest, predicate []byte) (Statement, error) {
	if err := about.Validate(); err != nil {
		return Statement{}, err
	}
	if len(predicate) == 0 {
		predicate = []byte("{}")
	}
	var object map[string]any
	if err := json.Unmarshal(predicate, &object); err != nil || object == nil {
		return Statement{}, errors.New("trust: a predicate is a JSON object")
	}
	subject := Subject{Name: name, Digest: map[string]string{about.Algorithm().String(): about.Encoded()}}
	return Statement{StatementType, []Subject{subject}, kind.PredicateType, predicate}, nil
}

// ParseStatement reads a statement.
func ParseStatement(payload []byte) (Statement, error) {
	var s Statement
	if err := strict(payload, MaxStatement, &s); err != nil {
		return s, err
	}
	if s.Type != StatementType || len(s.Subject) == 0 || s.PredicateType == "" || len(s.Predicate) == 0 {
		return s, errors.New("trust: not an in-toto statement v1 with subject and predicate")
	}
	return s, nil
}

// About says whether the statement is about an artifact.
func (s Statement) About(d digest.Digest) bool {
	for _, subject := range s.Subject {
		if subject.Digest[d.Algorithm().String()] == d.Encoded() && d.Encoded() != "" {
			return true
		}
	}
	return false
}

// strict decodes one JSON value with nothing unknown in it and nothing after it. A
// key that stands twice, or on the outer levels differs in case alone, would be read
// differently by different readers: it is refused.
func strict(text []byte, limit int, v any) error {
	if len(text) > limit {
		return errors.New("trust: the document is too large")
	}
	if err := distinctKeys(json.NewDecoder(bytes.NewReader(text)), 0); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("trust: something follows the document")
	}
	return nil
}

// maxDepth bounds how deep a document nests.
const maxDepth = 64

func distinctKeys(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > maxDepth {
		return errors.New("trust: the document nests too deep")
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name := key.(string)
			if depth < 2 {
				name = strings.ToLower(name)
			}
			if seen[name] {
				return errors.New("trust: a key stands twice in the document")
			}
			seen[name] = true
		}
		if err := distinctKeys(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
