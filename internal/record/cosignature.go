package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the type of Ed25519 cosignatures in keys of signed notes:
// https://c2sp.org/tlog-cosignature.
const algCosignature = 0x04

// Witness is the key of a witness: it cosigns checkpoints that begin with all it
// has seen before.
type Witness struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
}

// NewWitness makes a witness of its private key, as Witness.PrivateKey spells it.
func NewWitness(private string) (*Witness, error) {
	rest, ok := strings.CutPrefix(private, "PRIVATE+KEY+")
	if !ok {
		return nil, errors.New("record: not a private key of a witness")
	}
	name, hash, seed, err := splitKey(rest)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errors.New("record: not a private key of a witness")
	}
	w := WitnessFromSeed(name, seed)
	if w.hash != hash {
		return nil, fmt.Errorf("record: the private key of witness %s does not belong to its name", name)
	}
	return w, nil
}

// WitnessFromSeed makes a witness of 32 secret random bytes.
func WitnessFromSeed(name string, seed []byte) *Witness {
	key := ed25519.NewKeyFromSeed(seed)
	return &Witness{name: name, hash: keyHash(name, key.Public().(ed25519.PublicKey)), key: key}
}

func keyHash(name string, public ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), []byte{algCosignature}, public))
	return binary.BigEndian.Uint32(sum[:])
}

// splitKey reads NAME+HASH+KEY of cosignature keys.
func splitKey(text string) (name string, hash uint32, material []byte, err error) {
	name, rest, _ := strings.Cut(text, "+")
	sum, key, _ := strings.Cut(rest, "+")
	h, err := strconv.ParseUint(sum, 16, 32)
	raw, err2 := base64.StdEncoding.Strict().DecodeString(key)
	if err := errors.Join(err, err2); err != nil || len(sum) != 8 || !ValidOrigin(name) || len(raw) == 0 || raw[0] != algCosignature {
		return "", 0, nil, errors.New("record: not the key of a witness: NAME+HASH+KEY of the type of cosignatures")
	}
	return name, uint32(h), raw[1:], nil
}

// PrivateKey spells the key as one line. Whoever has it can cosign.
func (w *Witness) PrivateKey() string { return "PRIVATE+KEY+" + spellKey(w.name, w.hash, w.key.Seed()) }

// PublicKey spells the key that clients know the witness by.
func (w *Witness) PublicKey() string {
	return spellKey(w.name, w.hash, w.key.Public().(ed25519.PublicKey))
}

func spellKey(name string, hash uint32, material []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, material...)))
}

// At is the witness as a signer of notes at a time.
func (w *Witness) At(now time.Time) note.Signer { return cosigner{w, now} }

type cosigner struct {
	*Witness
	now time.Time
}

// Name is note.Signer.
func (c cosigner) Name() string { return c.name }

// KeyHash is note.Signer.
func (c cosigner) KeyHash() uint32 { return c.hash }

// Sign gives the time, 8 bytes of seconds, and the signature over it and the text.
func (c cosigner) Sign(text []byte) ([]byte, error) {
	seconds := c.now.Unix()
	if seconds < 0 {
		return nil, errors.New("record: a cosignature from before 1970")
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(seconds))
	return append(out, ed25519.Sign(c.key, cosigned(uint64(seconds), text))...), nil
}

func cosigned(seconds uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", seconds), text...)
}

// NewWitnessVerifier reads the public key of a witness.
func NewWitnessVerifier(public string) (note.Verifier, error) {
	name, hash, key, err := splitKey(public)
	if err != nil {
		return nil, err
	}
	if len(key) != ed25519.PublicKeySize || keyHash(name, key) != hash {
		return nil, fmt.Errorf("record: the key of witness %s does not belong to its name", name)
	}
	return witnessVerifier{name, hash, key}, nil
}

type witnessVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// Name is note.Verifier.
func (v witnessVerifier) Name() string { return v.name }

// KeyHash is note.Verifier.
func (v witnessVerifier) KeyHash() uint32 { return v.hash }

// Verify is note.Verifier.
func (v witnessVerifier) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	return seconds <= math.MaxInt64 && ed25519.Verify(v.key, cosigned(seconds, text), sig[8:])
}

// Cosignature says that a witness saw a checkpoint, and when.
type Cosignature struct {
	Witness string    `json:"witness"` // its name
	Time    time.Time `json:"time"`    // UTC, whole seconds
}

// Cosignatures gives, for each witness whose valid cosignature the checkpoint
// bears, the newest. A false one counts as none. Each key counts once.
func Cosignatures(signed []byte, witnesses []note.Verifier) []Cosignature {
	var out []Cosignature
	counted := map[uint32]bool{}
	for _, w := range witnesses {
		n, err := note.Open(signed, note.VerifierList(w))
		if err != nil || counted[w.KeyHash()] {
			continue
		}
		counted[w.KeyHash()] = true
		raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
		if err != nil || len(raw) < 12 {
			continue
		}
		out = append(out, Cosignature{Witness: w.Name(), Time: time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()})
	}
	return out
}

// AddCosignatures gives the checkpoint with signature lines added.
func AddCosignatures(signed []byte, lines ...[]byte) []byte {
	return append(slices.Clone(signed), slices.Concat(lines...)...)
}
