package record

import (
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// ProveInclusion gives the proof that entry index is in the record of the given
// size (RFC 6962, section 2.1.1: the Merkle audit path).
func ProveInclusion(size, index int64, r tlog.HashReader) (tlog.RecordProof, error) {
	if index < 0 || index >= size {
		return nil, fault.New(fault.NotFound, "the record has no entry %d; it has %d entries", index, size)
	}
	return tlog.ProveRecord(size, index, r)
}

// CheckInclusion says whether proof shows that leaf is entry index of the record
// with that size and root: nil, or a fault of kind Refused.
func CheckInclusion(proof tlog.RecordProof, size int64, root tlog.Hash, index int64, leaf []byte) error {
	if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(leaf)); err != nil {
		return fault.New(fault.Refused, "entry %d is not proven to be in the record of %d entries with root %s: %w", index, size, root, err)
	}
	return nil
}

// ProveConsistency gives the proof that the record of size begins with the record
// of the smaller size old (RFC 6962, section 2.1.2).
func ProveConsistency(old, size int64, r tlog.HashReader) (tlog.TreeProof, error) {
	if old < 0 || old > size {
		return nil, fault.New(fault.NotFound, "the record has %d entries, fewer than %d", size, old)
	}
	if old == 0 {
		return tlog.TreeProof{}, nil // everything begins with the empty record
	}
	return tlog.ProveTree(size, old, r)
}

// CheckConsistency says whether proof shows that the record with size and root
// begins with the one with old and oldRoot: nil, or a fault of kind Refused.
func CheckConsistency(proof tlog.TreeProof, old int64, oldRoot tlog.Hash, size int64, root tlog.Hash) error {
	err := checkConsistency(proof, old, oldRoot, size, root)
	if err != nil {
		return fault.New(fault.Refused, "the record of %d entries with root %s is not proven to begin with that of %d entries with root %s: %w",
			size, root, old, oldRoot, err)
	}
	return nil
}

func checkConsistency(proof tlog.TreeProof, old int64, oldRoot tlog.Hash, size int64, root tlog.Hash) error {
	if old != 0 {
		return tlog.CheckTree(proof, size, root, old, oldRoot)
	}
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		return err
	}
	if size < 0 || len(proof) != 0 || oldRoot != empty {
		return fault.New(fault.Refused, "the empty record has another root, and needs no proof")
	}
	return nil
}
