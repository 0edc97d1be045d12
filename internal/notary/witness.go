package notary

import (
	"context"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// witnessPatience is how long a witness may take.
const witnessPatience = 5 * time.Second

// Witness cosigns checkpoints, by whatever way it is reached.
type Witness interface {
	// Key is the witness' public key.
	Key() note.Verifier
	// Cosign asks with a proof from what the witness is thought to know: prove gives
	// one from any number of entries. It returns the lines of its cosignatures. known
	// is changed to what the witness turned out to know.
	Cosign(ctx context.Context, signed []byte, known *int64, prove func(old int64) (record.ConsistencyProof, error)) ([]byte, error)
}

// cosign asks all witnesses at once and adds what they answer.
func (n *Notary) cosign(ctx context.Context, now *record.Seen) {
	if len(n.Witnesses) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, witnessPatience)
	defer cancel()
	prove := func(old int64) (record.ConsistencyProof, error) {
		hashes, err := record.ProveConsistency(old, now.Size, n.Record.Hashes(ctx))
		return record.ConsistencyProof{Old: old, Hashes: hashes, Checkpoint: now.Signed}, err
	}
	lines := make([][]byte, len(n.Witnesses))
	var wait sync.WaitGroup
	for i, w := range n.Witnesses {
		wait.Go(func() {
			name := w.Key().Name()
			n.mu.Lock()
			known := n.seen[name]
			n.mu.Unlock()
			got, err := w.Cosign(ctx, now.Signed, &known, prove)
			n.mu.Lock()
			n.seen[name] = known
			n.mu.Unlock()
			if err != nil {
				n.Log.Warn("a witness did not cosign", "witness", name, "size", now.Size, "err", err)
				return
			}
			lines[i] = got
		})
	}
	wait.Wait()
	var keys []note.Verifier
	for _, w := range n.Witnesses {
		keys = append(keys, w.Key())
	}
	now.Signed = record.AddCosignatures(now.Signed, lines...)
	now.Cosignatures = record.Cosignatures(now.Signed, keys)
}
