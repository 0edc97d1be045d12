package record

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrNoHash is what a HashReader returns for a hash that is not stored.
var ErrNoHash = errors.New("hash is not in the record")

// Append gives the hashes to store when leaves are appended to a tree of the
// given size, and the root of the tree that results. The hashes belong at
// tlog.StoredHashIndex(0, size) and the indexes after it, in order: each leaf's
// own hash and those of the subtrees that it completes.
// Of the old tree it reads at most 1 + log2(size) hashes.
//
// Leaves and nodes are hashed as in RFC 6962, section 2.1
// (https://www.rfc-editor.org/rfc/rfc6962#section-2.1), so that no leaf can pass
// for a node.
func Append(size int64, leaves [][]byte, r tlog.HashReader) ([]tlog.Hash, tlog.Hash, error) {
	edge, err := readEdge(size, r)
	if err != nil {
		return nil, tlog.Hash{}, err
	}
	var hashes []tlog.Hash
	for _, leaf := range leaves {
		added, err := edge.append(leaf)
		if err != nil {
			return nil, tlog.Hash{}, err
		}
		hashes = append(hashes, added...)
	}
	root, err := edge.root()
	return hashes, root, err
}

// Root is the Merkle tree hash of the first size entries; for 0 that of RFC 6962's
// empty tree.
func Root(size int64, r tlog.HashReader) (tlog.Hash, error) { return tlog.TreeHash(size, r) }

// edge is the right edge of a tree: the roots of its complete subtrees, one for
// each bit that is set in size. It is all that appending needs to know of a tree.
type edge struct {
	size  int64
	roots [64]tlog.Hash // by level
}

func readEdge(size int64, r tlog.HashReader) (*edge, error) {
	e := &edge{size: size}
	var indexes []int64
	var levels []int
	for level := bits.Len64(uint64(size)) - 1; level >= 0; level-- {
		if size>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, size>>level-1))
			levels = append(levels, level)
		}
	}
	if len(indexes) == 0 {
		return e, nil
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("record: read the edge of %d entries: %w", size, err)
	}
	for i, level := range levels {
		e.roots[level] = hashes[i]
	}
	return e, nil
}

// ReadHashes gives the hashes of the edge; appending and the root need no others.
func (e *edge) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		if e.size>>level&1 == 0 || n != e.size>>level-1 {
			return nil, fmt.Errorf("record: hash %d is not on the edge: %w", index, ErrNoHash)
		}
		out[i] = e.roots[level]
	}
	return out, nil
}

// append adds a leaf and gives the hashes that it adds to the tree.
func (e *edge) append(leaf []byte) ([]tlog.Hash, error) {
	hashes, err := tlog.StoredHashes(e.size, leaf, e)
	if err != nil {
		return nil, err
	}
	e.size++
	e.roots[len(hashes)-1] = hashes[len(hashes)-1]
	return hashes, nil
}

func (e *edge) root() (tlog.Hash, error) { return tlog.TreeHash(e.size, e) }
