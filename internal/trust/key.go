package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
)

// KeyID names a public key: the SHA-256 of its PKIX DER form, in hex.
type KeyID string

// Hint is how Sigstore bundles name the key.
func (id KeyID) Hint() string {
	raw, _ := hex.DecodeString(string(id)) //nolint:errcheck // an ID that is not hex names no key
	return base64.StdEncoding.EncodeToString(raw)
}

// PublicKey is an ECDSA key on P-256, the one kind that everybody's verifiers take.
type PublicKey struct {
	key *ecdsa.PublicKey
	der []byte
}

// NewPublicKey takes the public half of a signer.
func NewPublicKey(public any) (PublicKey, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return PublicKey{}, errors.New("trust: the key is not an ECDSA key on the curve P-256")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	return PublicKey{key, der}, err
}

// ParsePublicKey reads a key in PEM, as `ashlar key` and cosign write it.
func ParsePublicKey(text []byte) (PublicKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return PublicKey{}, errors.New("trust: not a public key in PEM")
	}
	return parseDER(block.Bytes)
}

func parseDER(der []byte) (PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, errors.New("trust: not a public key")
	}
	k, err := NewPublicKey(public)
	if err == nil && !bytes.Equal(k.der, der) {
		err = errors.New("trust: the public key is not in its one form")
	}
	return k, err
}

// ID names the key.
func (k PublicKey) ID() KeyID {
	sum := sha256.Sum256(k.der)
	return KeyID(hex.EncodeToString(sum[:]))
}

// ECDSA is the key for the standard library.
func (k PublicKey) ECDSA() *ecdsa.PublicKey { return k.key }

// PEM spells the key.
func (k PublicKey) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der}))
}

// verify says whether sig is the key's signature of the message.
func (k PublicKey) verify(message, sig []byte) bool {
	sum := sha256.Sum256(message)
	return ecdsa.VerifyASN1(k.key, sum[:], sig)
}

func (k PublicKey) verifySum(sum, sig []byte) bool { return ecdsa.VerifyASN1(k.key, sum, sig) }
