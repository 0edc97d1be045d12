// Package proof is the evidence of what runs in an environment, as one file: for each
// running instance the release that it was ordered by, the artifact and the sealed tree,
// the statements about them, and the entries of the record that tell of it, proven by one
// signed checkpoint. Who has the file and a trust root needs nothing else, neither the
// server nor a network.
//
// What is in the file is named by digest and stands there once, however many instances
// share it. Nothing in it is believed: [Parse] compares every blob with its name, and
// [Verify] leads everything back to the trust root.
//
// Start at [Verify]; what each check is and what leads to its refusal is in the tests.
package proof

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Schema is the value of Proof.Schema.
const Schema = "ashlar.dev/proof/v1"

// What a file may have.
const (
	MaxSize      = 1 << 30   // bytes
	maxBlobs     = 100_000   // of them, and of statements, each of which is a signature to check
	maxEntries   = 1_000_000 //
	maxInstances = 100_000   //
)

// Proof is the file.
type Proof struct {
	Schema string    `json:"schema"`
	App    string    `json:"app"`
	Env    string    `json:"env"`
	Host   string    `json:"host,omitempty"` // of the server, as it says
	Taken  time.Time `json:"taken"`          // by the clock of who took it

	TrustRoot  []byte `json:"trustRoot,omitempty"` // of the server, as trust.ParseChain reads it
	Checkpoint string `json:"checkpoint"`          // signed, with cosignatures: what the entries are proven by

	Current   digest.Digest `json:"current,omitempty"` // the release that is live
	Instances []Instance    `json:"instances"`
	Entries   []Entry       `json:"entries"` // of the record, by index

	Settings   map[digest.Digest]digest.Digest   `json:"settings,omitempty"`   // by seal: the blob with the tree of a settings layer
	Statements map[digest.Digest][]digest.Digest `json:"statements,omitempty"` // by what they are about: blobs with bundles
	Blobs      map[digest.Digest][]byte          `json:"blobs"`                // release documents, manifests, configurations, trees, ledgers, bundles
}

// Instance is one running instance, as the server observed it.
type Instance struct {
	ID        string        `json:"id"`
	Component string        `json:"component"`
	Release   digest.Digest `json:"release"` // that it was ordered by
	Spec      digest.Digest `json:"spec"`
	Phase     string        `json:"phase"`
	StartedAt time.Time     `json:"startedAt"`
}

// Entry is an entry of the record with the proof that it is there.
type Entry struct {
	Index  int64            `json:"index"`
	Leaf   []byte           `json:"leaf"`
	Hashes tlog.RecordProof `json:"hashes"`
}

// New is a proof without evidence yet.
func New(app, env string, taken time.Time) *Proof {
	return &Proof{Schema: Schema, App: app, Env: env, Taken: taken.UTC(), Instances: []Instance{}, Entries: []Entry{},
		Settings: map[digest.Digest]digest.Digest{}, Statements: map[digest.Digest][]digest.Digest{}, Blobs: map[digest.Digest][]byte{}}
}

// Put adds a blob and gives its name.
func (p *Proof) Put(content []byte) digest.Digest {
	d := digest.FromBytes(content)
	p.Blobs[d] = content
	return d
}

// Add adds an entry that a proof shows; all of them have to be by the same checkpoint.
func (p *Proof) Add(i record.InclusionProof) error {
	if p.Checkpoint == "" {
		p.Checkpoint = string(i.Checkpoint)
	}
	if p.Checkpoint != string(i.Checkpoint) {
		return errors.New("proof: the entries are proven by different checkpoints")
	}
	p.Entries = append(p.Entries, Entry{i.Index, i.Leaf, i.Hashes})
	return nil
}

// Marshal gives the file.
func (p *Proof) Marshal() ([]byte, error) {
	text, err := json.Marshal(p)
	return append(text, '\n'), err
}

// Parse reads a file and compares every blob with its name.
func Parse(text []byte) (*Proof, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("proof: the file has more than %d bytes", MaxSize)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var p Proof
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("proof: the file cannot be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("proof: something follows in the file")
	}
	if p.Schema != Schema || p.App == "" || p.Env == "" {
		return nil, errors.New("proof: the file is no proof of an environment")
	}
	statements := 0
	for _, bundles := range p.Statements {
		statements += len(bundles)
	}
	if len(p.Blobs) > maxBlobs || len(p.Entries) > maxEntries || len(p.Instances) > maxInstances || statements > maxBlobs {
		return nil, errors.New("proof: the file has too much in it")
	}
	for d, content := range p.Blobs {
		if _, ok := image.Hex(d); !ok || digest.FromBytes(content) != d {
			return nil, fmt.Errorf("proof: a blob of the file is not what its name says: %s", d)
		}
	}
	return &p, nil
}

// ReadAll gives a blob. It is ledger.Objects.
func (p *Proof) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	b, ok := p.Blobs[d]
	if !ok {
		return nil, &absentError{d}
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has %d bytes; the limit is %d", d, len(b), limit)
	}
	return b, nil
}

// absentError says that the file lacks a blob.
type absentError struct{ d digest.Digest }

func (e *absentError) Error() string { return "the file does not have " + e.d.String() }
