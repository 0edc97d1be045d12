// Package record is the tamper-evident log of everything that ever happened: an
// append-only Merkle tree (RFC 6962 hashing, as in golang.org/x/mod/sumdb/tlog)
// over canonical JSON entries. This package is pure; the store keeps entries and
// hashes and appends them in the transaction of the change they describe.
//
// Start at [Entry]; [Append] is how the tree grows, [Verify] recomputes all of it.
// attack_test.go shows what is found and what it is called.
//
// Sources: RFC 6962 (https://www.rfc-editor.org/rfc/rfc6962), section 2, for hashes
// and proofs; Crosby and Wallach, "Efficient Data Structures for Tamper-Evident
// Logging", section 3.3, for the order of the stored hashes; RFC 8785 for leaves.
package record

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Entry is one fact. Its canonical JSON is the leaf that the Merkle tree hashes.
type Entry struct {
	Index    int64             `json:"index"`              // position in the log, from 0; set when appended
	Time     time.Time         `json:"time"`               // UTC, when it was decided
	Actor    string            `json:"actor"`              // who: a user ("root@host") or "ashlar" for the engine
	Kind     string            `json:"kind"`               // what: one of the kinds in internal/rollout and internal/engine, e.g. "rollout.started"
	App      string            `json:"app,omitempty"`      //
	Env      string            `json:"env,omitempty"`      //
	Release  digest.Digest     `json:"release,omitempty"`  // which release it is about
	Rollout  int               `json:"rollout,omitempty"`  // number of the rollout within its environment, from 1
	Instance string            `json:"instance,omitempty"` // instance ID
	Reason   string            `json:"reason,omitempty"`   // why, one sentence
	Data     map[string]string `json:"data,omitempty"`     // further facts, few and small; never a secret
}
