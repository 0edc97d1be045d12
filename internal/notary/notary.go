package notary

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Record is what a notary reads. It only ever grows.
type Record interface {
	// Head gives the number of entries and the root over them.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Hashes gives the stored hashes of the tree.
	Hashes(ctx context.Context) tlog.HashReader
	// Leaves gives the bytes of the entries from index from up to before to.
	Leaves(ctx context.Context, from, to int64) ([][]byte, error)
}

// Config says whose notary it is.
type Config struct {
	Dir       string // state directory; not the database, so that it cannot be rolled back with it
	Host      string // names the log when it is new
	Record    Record
	Now       func() time.Time
	Log       *slog.Logger
	Witnesses []Witness
	Anchor    Anchor        // nil: none
	Every     time.Duration // between anchors; only what grew is anchored
}

// Notary is safe for concurrent use.
type Notary struct {
	Config
	signer   note.Signer
	verifier note.Verifier

	publishing sync.Mutex // one Publish at a time
	mu         sync.Mutex
	latest     record.Seen // the last checkpoint, with its cosignatures
	anchored   int64       // its size when it was anchored; -1: not by this process
	anchoredAt time.Time
	seen       map[string]int64 // by witness: entries of what it last cosigned
}

// Open reads or makes the log's key and compares the record with the checkpoint
// that was remembered. A record that does not begin with it is a fault of kind
// Refused: it was rolled back, or is another.
func Open(ctx context.Context, c Config) (*Notary, error) {
	n := &Notary{Config: c, seen: map[string]int64{}, anchored: -1}
	remembered, err := os.ReadFile(filepath.Join(c.Dir, checkpointFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "the last checkpoint cannot be read: %w", err).At(filepath.Join(c.Dir, checkpointFile))
	}
	if _, keyErr := os.Stat(filepath.Join(c.Dir, keyFile)); errors.Is(keyErr, fs.ErrNotExist) && err == nil {
		return nil, n.refuse("lost", "the key of the log is gone, its last checkpoint is not")
	}
	if n.signer, n.verifier, err = loadKey(c.Dir, c.Host); err != nil {
		return nil, err
	}
	if len(remembered) > 0 {
		if err := n.compare(ctx, remembered); err != nil {
			return nil, err
		}
	}
	_, err = n.Publish(ctx)
	return n, err
}

// compare checks the record against the remembered checkpoint.
func (n *Notary) compare(ctx context.Context, signed []byte) error {
	was, err := record.OpenCheckpoint(signed, n.verifier)
	if err != nil {
		return n.refuse(record.Unsigned, fmt.Sprintf("the checkpoint that was remembered is not this log's: %v", err))
	}
	size, _, err := n.Record.Head(ctx)
	if err != nil {
		return err
	}
	if size < was.Size {
		return n.refuse(record.RolledBack, fmt.Sprintf("the record has %d entries; it had %d when the server last signed it", size, was.Size))
	}
	root, err := record.Root(was.Size, n.Record.Hashes(ctx))
	if err != nil {
		return n.refuse(record.Rehashed, fmt.Sprintf("the stored hashes of the record cannot be read: %v", err))
	}
	if root != was.Root {
		return n.refuse(record.Forked, fmt.Sprintf("the first %d entries of the record are not those that the server signed: root %s, not %s", was.Size, root, was.Root))
	}
	n.latest = record.Seen{Checkpoint: was, Signed: signed}
	return nil
}

func (n *Notary) refuse(verdict record.Verdict, what string) error {
	return fault.New(fault.Refused, "%s", what).At(filepath.Join(n.Dir, checkpointFile)).
		Detail("verdict: "+string(verdict), "the database is not the one that was last in use: restored from a backup, or exchanged").
		Mend("put the right database in place; or, if the loss is accepted, begin a new log that says so:  ashlar log renew --reason WHY")
}

// Key is the log's public key, as auditors need it.
func (n *Notary) Key() (string, error) { return PublicKey(n.Dir) }

// Latest is the last checkpoint that was published.
func (n *Notary) Latest() record.Seen {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest
}

// Publish signs the record as it is now, if it grew, remembers the checkpoint and
// has the witnesses cosign it. A witness that does not is a warning: the
// checkpoint is published without its cosignature.
func (n *Notary) Publish(ctx context.Context) (record.Seen, error) {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	size, root, err := n.Record.Head(ctx)
	if err != nil {
		return record.Seen{}, err
	}
	was := n.Latest()
	complete := len(was.Cosignatures) == len(n.Witnesses)
	if was.Signed != nil && was.Size == size && complete {
		return was, nil
	}
	now := record.Seen{Checkpoint: record.Checkpoint{Origin: n.signer.Name(), Size: size, Root: root}}
	if now.Signed, err = now.Sign(n.signer); err != nil {
		return now, fmt.Errorf("sign the checkpoint: %w", err)
	}
	if was.Signed == nil || was.Size != size {
		if err := durable.Replace(filepath.Join(n.Dir, checkpointFile), now.Signed, 0o644); err != nil {
			return now, fault.New(fault.Unavailable, "the checkpoint cannot be remembered: %w", err).At(filepath.Join(n.Dir, checkpointFile))
		}
	}
	n.cosign(ctx, &now)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latest = now
	return now, nil
}

// Verifier checks the log's own signature.
func (n *Notary) Verifier() note.Verifier { return n.verifier }

// Prove gives the proof that an entry is in the record, as it is now.
func (n *Notary) Prove(ctx context.Context, index int64) (record.InclusionProof, error) {
	all, err := n.ProveAll(ctx, []int64{index})
	if err != nil {
		return record.InclusionProof{}, err
	}
	return all[0], nil
}

// ProveAll gives the proofs of several entries, all by the same checkpoint.
func (n *Notary) ProveAll(ctx context.Context, indexes []int64) ([]record.InclusionProof, error) {
	now, err := n.covering(ctx, slices.Max(append([]int64{0}, indexes...))+1)
	if err != nil {
		return nil, err
	}
	out := make([]record.InclusionProof, 0, len(indexes))
	for _, index := range indexes {
		hashes, err := record.ProveInclusion(now.Size, index, n.Record.Hashes(ctx))
		if err != nil {
			return nil, err
		}
		leaves, err := n.Record.Leaves(ctx, index, index+1)
		if err != nil || len(leaves) != 1 {
			return nil, errors.Join(err, fault.New(fault.NotFound, "the record has no entry %d", index))
		}
		out = append(out, record.InclusionProof{Index: index, Leaf: leaves[0], Hashes: hashes, Checkpoint: now.Signed})
	}
	return out, nil
}

// Consistency gives the proof that the record, as it is now, begins with its first
// old entries.
func (n *Notary) Consistency(ctx context.Context, old int64) (record.ConsistencyProof, error) {
	now, err := n.covering(ctx, old)
	if err != nil {
		return record.ConsistencyProof{}, err
	}
	hashes, err := record.ProveConsistency(old, now.Size, n.Record.Hashes(ctx))
	return record.ConsistencyProof{Old: old, Hashes: hashes, Checkpoint: now.Signed}, err
}

// covering is the last checkpoint if it has so many entries, else a new one.
func (n *Notary) covering(ctx context.Context, size int64) (record.Seen, error) {
	if now := n.Latest(); now.Size >= size {
		return now, nil
	}
	return n.Publish(ctx)
}
