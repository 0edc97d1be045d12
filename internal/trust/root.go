package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// Root is one version of who is trusted with what. Its shape is that of TUF's root
// (https://theupdateframework.github.io/specification/latest/#file-formats-root): keys,
// roles with thresholds, a version and an expiry; with the logs and revocations that
// statements need, and its predecessor's digest.
type Root struct {
	Type        string               `json:"_type"` // "root"
	SpecVersion string               `json:"spec_version"`
	Version     int                  `json:"version"` // from 1, each one more
	Expires     time.Time            `json:"expires"` // from then on nothing is decided by it
	Keys        map[KeyID]Key        `json:"keys"`
	Roles       map[Role]Holders     `json:"roles"`
	Logs        map[string]Log       `json:"logs"`               // by name (origin)
	Revoked     map[KeyID]Revocation `json:"revoked,omitempty"`  //
	Previous    digest.Digest        `json:"previous,omitempty"` // of the version before
}

// Key is a public key in TUF's form.
type Key struct {
	KeyType string `json:"keytype"` // "ecdsa"
	Scheme  string `json:"scheme"`  // "ecdsa-sha2-nistp256"
	KeyVal  KeyVal `json:"keyval"`
	Owner   string `json:"owner,omitempty"` // for people
}

// KeyVal holds the key.
type KeyVal struct {
	Public string `json:"public"` // PEM
}

// Holders are the keys of a role, and how many of them have to agree.
type Holders struct {
	KeyIDs    []KeyID `json:"keyids"`
	Threshold int     `json:"threshold"`
}

// Log is a record whose proofs count, by its key and those of its witnesses.
type Log struct {
	Key       string   `json:"key"`  // as `ashlar log key` prints it
	From      int64    `json:"from"` // entries from this index on are judged by this version
	Witnesses []string `json:"witnesses,omitempty"`
	Quorum    int      `json:"quorum,omitempty"` // of the witnesses
}

// Revocation says what of a key is not believed any more: what is not in a log, and
// in each log what stands at an index or later.
type Revocation struct {
	Reason string           `json:"reason"`
	From   map[string]int64 `json:"from,omitempty"` // by log; a log that is not here: nothing is believed
}

// canonical is what is signed: RFC 8785.
func (r Root) canonical() ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(raw)
}

// public reads a key of the root.
func (r Root) public(id KeyID) (PublicKey, bool) {
	k, ok := r.Keys[id]
	if !ok {
		return PublicKey{}, false
	}
	p, err := ParsePublicKey([]byte(k.KeyVal.Public))
	return p, err == nil && p.ID() == id
}

// Has says whether a key has a role.
func (r Root) Has(role Role, id KeyID) bool { return slices.Contains(r.Roles[role].KeyIDs, id) }

// Validate says whether the version is whole in itself.
func (r Root) Validate() error {
	if r.Type != "root" || r.SpecVersion != "1.0.0" || r.Version < 1 || r.Expires.IsZero() || (r.Version == 1) != (r.Previous == "") {
		return errors.New("trust: not a trust root: type, version, expiry, predecessor")
	}
	holds := map[KeyID]Role{}
	for _, role := range slices.Sorted(maps.Keys(r.Roles)) {
		h := r.Roles[role]
		if !slices.Contains(Roles(), role) {
			return fmt.Errorf("trust: the role %q is not known", role)
		}
		if h.Threshold < 1 || h.Threshold > len(h.KeyIDs) {
			return fmt.Errorf("trust: the role %s has %d keys and needs %d", role, len(h.KeyIDs), h.Threshold)
		}
		for _, id := range h.KeyIDs {
			if other, ok := holds[id]; ok {
				return fmt.Errorf("trust: the key %s has the roles %s and %s; each key has one", id, other, role)
			}
			holds[id] = role
		}
	}
	if _, ok := r.Roles[RoleRoot]; !ok {
		return errors.New("trust: nobody has the role root")
	}
	for id := range holds {
		if _, ok := r.public(id); !ok {
			return fmt.Errorf("trust: the key %s is not there, or is another", id)
		}
	}
	for id, k := range r.Keys {
		if _, ok := r.public(id); !ok || k.KeyType != "ecdsa" || k.Scheme != "ecdsa-sha2-nistp256" {
			return fmt.Errorf("trust: the key %s is not one", id)
		}
	}
	return r.validateLogs()
}

func (r Root) validateLogs() error {
	for origin, l := range r.Logs {
		v, err := note.NewVerifier(l.Key)
		if err != nil || v.Name() != origin || l.From < 0 || l.Quorum < 0 || l.Quorum > len(l.Witnesses) {
			return fmt.Errorf("trust: the log %q has no key of its name, or a quorum that cannot be", origin)
		}
		for _, w := range l.Witnesses {
			if _, err := record.NewWitnessVerifier(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Auditor checks what is said to be in the log.
func (l Log) Auditor() record.Auditor {
	a := record.Auditor{Quorum: l.Quorum}
	a.Log, _ = note.NewVerifier(l.Key) //nolint:errcheck // Validate has read it
	for _, w := range l.Witnesses {
		v, _ := record.NewWitnessVerifier(w) //nolint:errcheck // likewise
		a.Witnesses = append(a.Witnesses, v)
	}
	return a
}

// NewKey is a key in the root's form.
func NewKey(k PublicKey, owner string) Key {
	return Key{KeyType: "ecdsa", Scheme: "ecdsa-sha2-nistp256", KeyVal: KeyVal{k.PEM()}, Owner: owner}
}

// Clone is a copy that can be changed for the next version.
func (r Root) Clone() Root {
	r.Keys, r.Roles, r.Logs, r.Revoked = maps.Clone(r.Keys), maps.Clone(r.Roles), maps.Clone(r.Logs), maps.Clone(r.Revoked)
	for role, h := range r.Roles {
		h.KeyIDs = slices.Clone(h.KeyIDs)
		r.Roles[role] = h
	}
	return r
}
