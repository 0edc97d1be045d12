package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/gowebpki/jcs"
)

// The kind of entry that a statement is in a log: what Rekor v2 makes of it, and so
// what cosign looks for.
const (
	entryKind    = "hashedrekord"
	entryVersion = "0.0.2"
	keyDetails   = "PKIX_ECDSA_P256_SHA_256"
)

type logEntry struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       logEntrySpec `json:"spec"`
}

type logEntrySpec struct {
	HashedRekord hashedRekord `json:"hashedRekordV002"`
}

type hashedRekord struct {
	Data      hashedData     `json:"data"`
	Signature entrySignature `json:"signature"`
}

type hashedData struct {
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

type entrySignature struct {
	Content  string        `json:"content"`
	Verifier entryVerifier `json:"verifier"`
}

type entryVerifier struct {
	KeyDetails string   `json:"keyDetails"`
	PublicKey  rawBytes `json:"publicKey"`
}

type rawBytes struct {
	RawBytes string `json:"rawBytes"`
}

// LogEntry gives the leaf that a signed message is in a log: its digest, the
// signature and the key, in canonical JSON.
func LogEntry(message, sig []byte, key PublicKey) ([]byte, error) {
	b64 := base64.StdEncoding.EncodeToString
	sum := sha256.Sum256(message)
	raw, err := json.Marshal(logEntry{APIVersion: entryVersion, Kind: entryKind, Spec: logEntrySpec{hashedRekord{
		Data:      hashedData{"SHA2_256", b64(sum[:])},
		Signature: entrySignature{b64(sig), entryVerifier{keyDetails, rawBytes{b64(key.der)}}},
	}}})
	if err != nil {
		return nil, err
	}
	return jcs.Transform(raw)
}

// CheckLogEntry says whether a leaf is what LogEntry makes of some message, signed
// by the key that it names, and gives that key.
func CheckLogEntry(leaf []byte) (KeyID, error) {
	var e logEntry
	if err := strict(leaf, 1<<16, &e); err != nil {
		return "", err
	}
	r := e.Spec.HashedRekord
	var parts [3][]byte
	for i, text := range []string{r.Data.Digest, r.Signature.Content, r.Signature.Verifier.PublicKey.RawBytes} {
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return "", errors.New("trust: the log entry is not readable")
		}
		parts[i] = raw
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	canonical, err := jcs.Transform(raw)
	if err != nil || !bytes.Equal(canonical, leaf) {
		return "", errors.New("trust: the log entry is not in canonical form")
	}
	key, err := parseDER(parts[2])
	if err != nil {
		return "", err
	}
	known := e.APIVersion == entryVersion && e.Kind == entryKind && r.Data.Algorithm == "SHA2_256" && r.Signature.Verifier.KeyDetails == keyDetails
	if !known || len(parts[0]) != sha256.Size || !key.verifySum(parts[0], parts[1]) {
		return "", errors.New("trust: the log entry is not of a signature by the key that it names")
	}
	return key.ID(), nil
}
