package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Sign gives the webhook-signature of a message, symmetric scheme v1 of Standard
// Webhooks: HMAC-SHA256 over ID, time in seconds and body.
func Sign(key []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body) // a hash takes everything
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Key reads a secret's value: "whsec_" and base64, as Standard Webhooks writes keys, or
// the key's own bytes.
func Key(secret []byte) ([]byte, error) {
	text, coded := strings.CutPrefix(strings.TrimSpace(string(secret)), "whsec_")
	if !coded {
		if len(secret) == 0 {
			return nil, fault.New(fault.Invalid, "the secret is empty")
		}
		return secret, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		return nil, fault.New(fault.Invalid, "the secret begins with whsec_ and is not base64 after it") // its text is not told
	}
	return key, nil
}
