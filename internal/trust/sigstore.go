package trust

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// keyMaterial is the type and key within NAME+HASH+KEY.
func keyMaterial(key string) []byte {
	_, rest, _ := strings.Cut(key, "+")
	_, text, _ := strings.Cut(rest, "+")
	raw, _ := base64.StdEncoding.DecodeString(text) //nolint:errcheck // NewVerifier has read it
	return raw
}

type trustedRootJSON struct {
	MediaType string     `json:"mediaType"`
	Tlogs     []tlogJSON `json:"tlogs"`
}

type tlogJSON struct {
	BaseURL       string      `json:"baseUrl"`
	HashAlgorithm string      `json:"hashAlgorithm"`
	PublicKey     tlogKeyJSON `json:"publicKey"`
	LogID         logIDJSON   `json:"logId"`
}

type tlogKeyJSON struct {
	RawBytes   []byte       `json:"rawBytes"`
	KeyDetails string       `json:"keyDetails"`
	ValidFor   validForJSON `json:"validFor"`
}

type validForJSON struct {
	Start time.Time `json:"start"`
}

// epoch is from when others' verifiers take a log's key to be valid: which entries
// count is decided by their place, not by time.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// SigstoreRoot gives the logs as Sigstore's verifiers need them: a trusted_root.json.
// They take a log's name from the address, so that it has to be a host's.
func (r Root) SigstoreRoot() ([]byte, error) {
	out := trustedRootJSON{MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1", Tlogs: []tlogJSON{}}
	for _, origin := range slices.Sorted(maps.Keys(r.Logs)) {
		l := r.Logs[origin]
		v, err := note.NewVerifier(l.Key)
		if err != nil {
			return nil, err
		}
		material := keyMaterial(l.Key)
		if len(material) != 1+ed25519.PublicKeySize {
			return nil, errors.New("trust: the log's key is not an Ed25519 key")
		}
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(material[1:]))
		if err != nil {
			return nil, err
		}
		out.Tlogs = append(out.Tlogs, tlogJSON{
			BaseURL: "https://" + origin, HashAlgorithm: "SHA2_256",
			PublicKey: tlogKeyJSON{der, "PKIX_ED25519", validForJSON{epoch}}, LogID: logIDJSON{LogID(v, l.Key)},
		})
	}
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}
