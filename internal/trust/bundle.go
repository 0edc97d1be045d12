package trust

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/ashlar-infra/ashlar/internal/record"
)

const (
	// BundleType is the media type of bundles, also as OCI referrers.
	BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// PayloadType is the type of statements within envelopes.
	PayloadType = "application/vnd.in-toto+json"
	// MaxBundle is the largest bundle that is read, in bytes.
	MaxBundle = 2 * MaxStatement
)

// Bundle is a signed statement with the proof that it is in a log: a Sigstore bundle
// v0.3, as far as Ashlar makes and reads them (a key, no certificates).
type Bundle struct {
	Key       KeyID
	Payload   []byte // the statement
	Signature []byte // ASN.1, over the DSSE pre-authentication encoding
	Log       *Logged
}

// Logged is where a statement is in a log.
type Logged struct {
	LogID []byte // SHA-256 of the log's name, key type and key
	Body  []byte // the leaf
	Proof record.InclusionProof
}

// message is what is signed: https://github.com/secure-systems-lab/dsse.
func message(payload []byte) []byte { return dsse.PAE(PayloadType, payload) }

// Sign signs a statement. The key is an ECDSA key on P-256; random is what it draws
// its nonce from.
func Sign(s Statement, signer crypto.Signer, random io.Reader) (Bundle, error) {
	key, err := NewPublicKey(signer.Public())
	if err != nil {
		return Bundle{}, err
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return Bundle{}, err
	}
	sum := sha256.Sum256(message(payload))
	sig, err := signer.Sign(random, sum[:], crypto.SHA256)
	if err != nil {
		return Bundle{}, fmt.Errorf("trust: sign: %w", err)
	}
	return Bundle{Key: key.ID(), Payload: payload, Signature: sig}, nil
}

// LogEntry gives the leaf that the bundle's statement is in a log.
func (b Bundle) LogEntry(key PublicKey) ([]byte, error) {
	return LogEntry(message(b.Payload), b.Signature, key)
}

// The JSON of a bundle: the protobuf's, with 64-bit numbers as strings.
type bundleJSON struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial materialJSON `json:"verificationMaterial"`
	Envelope             envelopeJSON `json:"dsseEnvelope"`
}

type materialJSON struct {
	PublicKey   hintJSON        `json:"publicKey"`
	TlogEntries []tlogEntryJSON `json:"tlogEntries,omitempty"`
}

type hintJSON struct {
	Hint string `json:"hint"`
}

type tlogEntryJSON struct {
	LogIndex       string        `json:"logIndex"`
	LogID          logIDJSON     `json:"logId"`
	KindVersion    kindJSON      `json:"kindVersion"`
	InclusionProof inclusionJSON `json:"inclusionProof"`
	Body           []byte        `json:"canonicalizedBody"`
}

type logIDJSON struct {
	KeyID []byte `json:"keyId"`
}

type kindJSON struct {
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

type inclusionJSON struct {
	LogIndex   string         `json:"logIndex"`
	RootHash   []byte         `json:"rootHash"`
	TreeSize   string         `json:"treeSize"`
	Hashes     [][]byte       `json:"hashes"`
	Checkpoint checkpointJSON `json:"checkpoint"`
}

type checkpointJSON struct {
	Envelope string `json:"envelope"`
}

type envelopeJSON struct {
	Payload     []byte          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid,omitempty"`
}

// Marshal gives the bundle as JSON.
func (b Bundle) Marshal() ([]byte, error) {
	out := bundleJSON{MediaType: BundleType, Envelope: envelopeJSON{b.Payload, PayloadType, []signatureJSON{{Sig: b.Signature}}}}
	out.VerificationMaterial.PublicKey.Hint = b.Key.Hint()
	if l := b.Log; l != nil {
		c, err := checkpointOf(l.Proof.Checkpoint)
		if err != nil {
			return nil, err
		}
		e := tlogEntryJSON{LogIndex: decimal(l.Proof.Index), LogID: logIDJSON{l.LogID}, KindVersion: kindJSON{entryKind, entryVersion}, Body: l.Body}
		e.InclusionProof = inclusionJSON{LogIndex: decimal(l.Proof.Index), RootHash: c.Root[:], TreeSize: decimal(c.Size), Hashes: [][]byte{}, Checkpoint: checkpointJSON{string(l.Proof.Checkpoint)}}
		for _, h := range l.Proof.Hashes {
			e.InclusionProof.Hashes = append(e.InclusionProof.Hashes, h[:])
		}
		out.VerificationMaterial.TlogEntries = []tlogEntryJSON{e}
	}
	return json.Marshal(out)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// checkpointOf reads a checkpoint whose signature is checked elsewhere.
func checkpointOf(signed []byte) (record.Checkpoint, error) {
	text, _, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return record.Checkpoint{}, errors.New("trust: the checkpoint has no signatures")
	}
	return record.ParseCheckpoint(string(text) + "\n")
}

// ParseBundle reads a bundle. It checks no signature.
func ParseBundle(text []byte) (Bundle, error) {
	var in bundleJSON
	if err := strict(text, MaxBundle, &in); err != nil {
		return Bundle{}, fmt.Errorf("trust: the bundle is not readable: %w", err)
	}
	if in.MediaType != BundleType || in.Envelope.PayloadType != PayloadType || len(in.Envelope.Signatures) != 1 || len(in.VerificationMaterial.TlogEntries) > 1 {
		return Bundle{}, errors.New("trust: not a bundle v0.3 of one signature over an in-toto statement")
	}
	hint, err := base64.StdEncoding.Strict().DecodeString(in.VerificationMaterial.PublicKey.Hint)
	if err != nil || len(hint) != sha256.Size {
		return Bundle{}, errors.New("trust: the bundle does not name its key")
	}
	b := Bundle{Key: KeyID(fmt.Sprintf("%x", hint)), Payload: in.Envelope.Payload, Signature: in.Envelope.Signatures[0].Sig}
	for _, e := range in.VerificationMaterial.TlogEntries {
		b.Log, err = parseLogged(e)
	}
	return b, err
}

func parseLogged(e tlogEntryJSON) (*Logged, error) {
	p := e.InclusionProof
	index, err := strconv.ParseInt(p.LogIndex, 10, 64)
	if err != nil || e.LogIndex != p.LogIndex || decimal(index) != p.LogIndex || e.KindVersion != (kindJSON{entryKind, entryVersion}) {
		return nil, errors.New("trust: the bundle's log entry is not a hashedrekord 0.0.2 with an index")
	}
	c, err := checkpointOf([]byte(p.Checkpoint.Envelope))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(c.Root[:], p.RootHash) || decimal(c.Size) != p.TreeSize || len(p.Hashes) > 63 {
		return nil, errors.New("trust: the bundle's proof and its checkpoint differ")
	}
	l := &Logged{LogID: e.LogID.KeyID, Body: e.Body, Proof: record.InclusionProof{Index: index, Leaf: e.Body, Checkpoint: []byte(p.Checkpoint.Envelope)}}
	for _, h := range p.Hashes {
		if len(h) != sha256.Size {
			return nil, errors.New("trust: the bundle's proof has a hash that is none")
		}
		l.Proof.Hashes = append(l.Proof.Hashes, [sha256.Size]byte(h))
	}
	return l, nil
}
