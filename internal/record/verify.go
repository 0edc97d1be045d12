package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/tlog"
)

// Verdict is what is wrong with a record, in one word.
type Verdict string

// The verdicts. Only the root tells what was appended: where the entries give the
// root, they are the ones that were appended, and a stored hash that disagrees is
// the damage.
const (
	Altered   Verdict = "altered"   // an entry's bytes are not those that were appended
	Missing   Verdict = "missing"   // an entry is not there, later ones are
	Inserted  Verdict = "inserted"  // something stands where it was not appended
	Reordered Verdict = "reordered" // an entry stands later than it was appended
	Truncated Verdict = "truncated" // the last entries are not there
	Rehashed  Verdict = "rehashed"  // the entries are intact; a stored hash of theirs is not
	Rewritten Verdict = "rewritten" // entries and hashes agree with each other but not with the root: no entry can be named
	Malformed Verdict = "malformed" // an entry was appended that is none, or says that it is another
	Misfiled  Verdict = "misfiled"  // an entry is filed under another environment than it says (stores find this)
)

// The verdicts on a log as it is seen from outside.
const (
	Unsigned    Verdict = "unsigned"    // the checkpoint is not one that the log's key signed
	RolledBack  Verdict = "rolled-back" // the log has fewer entries than a checkpoint that was seen before
	Forked      Verdict = "forked"      // the log does not begin with what a checkpoint says that was seen before
	Unwitnessed Verdict = "unwitnessed" // too few witnesses cosigned the checkpoint
)

// Report is the outcome of verifying a record.
type Report struct {
	Size     int64     `json:"size"`              // entries that the record says it has
	Root     tlog.Hash `json:"root"`              // root that the record says it has
	Entries  int64     `json:"entries"`           // entries that were read
	Computed tlog.Hash `json:"computed"`          // root of the entries that were read
	Finding  *Finding  `json:"finding,omitempty"` // the first thing that is wrong; nil: the record is what it says
}

// OK says that the record is what it says.
func (r Report) OK() bool { return r.Finding == nil }

// Finding is the first thing that is wrong with a record.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	First   int64   `json:"first"` // index of the entry; -1: no entry can be named
	Last    int64   `json:"last"`  // of the last entry it may be, usually First
	What    string  `json:"what"`  // one sentence
}

// Verify recomputes the whole record from its entries, given in order as leaves,
// and compares every hash with the stored ones and the outcome with size and
// root. It reads the entries once and keeps O(log size) of them in memory.
//
// The report names the first entry that differs. The error is only about reading:
// what is wrong with the record is never an error. A hash that r does not have is
// expressed by an error that wraps ErrNoHash.
//
// That an earlier root is part of this record is shown by ProveConsistency, which
// may rely on the stored hashes once they were verified.
func Verify(leaves iter.Seq2[[]byte, error], r tlog.HashReader, size int64, root tlog.Hash) (Report, error) {
	v := verifier{hashes: r, size: size}
	report := Report{Size: size, Root: root}
	for leaf, err := range leaves {
		if err != nil {
			return report, fmt.Errorf("verify the record: entry %d: %w", v.edge.size, err)
		}
		if err := v.add(leaf); err != nil {
			return report, fmt.Errorf("verify the record: entry %d: %w", v.edge.size, err)
		}
	}
	computed, err := v.edge.root()
	if err != nil {
		return report, err
	}
	report.Entries, report.Computed = v.edge.size, computed
	report.Finding = v.verdict(computed == root && v.edge.size == size)
	return report, nil
}

// verifier recomputes the tree and remembers the first of each kind of difference.
type verifier struct {
	hashes tlog.HashReader
	size   int64
	edge   edge

	leaf      *mismatch // the first leaf whose hash is not the stored one
	node      *Finding  // the first stored hash of a subtree that is not the computed one
	malformed *Finding
}

// mismatch is the first position whose entry is not the one that the stored
// hashes know there.
type mismatch struct {
	index   int64
	stored  *tlog.Hash // of the entry that belongs there; nil: not stored
	stands  tlog.Hash  // of the entry that stands there
	genuine int64      // index of the appended entry that stands there; -1: none
	later   bool       // the entry that belongs there stands further on
	again   bool       // the entry that stands there stands further on too
}

func (v *verifier) add(leaf []byte) error {
	index := v.edge.size
	computed, err := v.edge.append(leaf)
	if err != nil {
		return err
	}
	stored, err := v.stored(tlog.StoredHashIndex(0, index), len(computed))
	if err != nil {
		return err
	}
	v.check(index, leaf)
	switch {
	case v.leaf != nil:
		v.leaf.later = v.leaf.later || v.leaf.belongs(leaf, computed[0])
		v.leaf.again = v.leaf.again || computed[0] == v.leaf.stands
	case stored[0] == nil || *stored[0] != computed[0]:
		v.leaf = &mismatch{index: index, stored: stored[0], stands: computed[0]}
		v.leaf.genuine, err = v.genuine(leaf, computed[0])
		return err
	}
	for level := 1; level < len(computed) && v.node == nil; level++ {
		if stored[level] == nil || *stored[level] != computed[level] {
			first := index + 1 - 1<<level
			v.node = &Finding{First: first, Last: index, What: fmt.Sprintf("the stored hash over entries %d to %d differs from them", first, index)}
		}
	}
	return nil
}

// check remembers the first leaf that is no entry or says another index.
func (v *verifier) check(index int64, leaf []byte) {
	if v.malformed != nil || IsStatement(leaf) {
		return
	}
	e, err := ParseLeaf(leaf)
	switch {
	case err != nil:
		v.malformed = &Finding{Verdict: Malformed, First: index, Last: index, What: fmt.Sprintf("entry %d: %v", index, err)}
	case e.Index != index:
		v.malformed = &Finding{Verdict: Malformed, First: index, Last: index, What: fmt.Sprintf("entry %d says that it is entry %d", index, e.Index)}
	}
}

// stored reads n stored hashes from index on; nil for one that is not there.
func (v *verifier) stored(index int64, n int) ([]*tlog.Hash, error) {
	indexes := make([]int64, n)
	for i := range indexes {
		indexes[i] = index + int64(i)
	}
	hashes, err := v.hashes.ReadHashes(indexes)
	if err != nil && !errors.Is(err, ErrNoHash) {
		return nil, err
	}
	out := make([]*tlog.Hash, n)
	for i := range out {
		if err == nil {
			out[i] = &hashes[i]
			continue
		}
		one, err := v.hashes.ReadHashes(indexes[i : i+1])
		if err == nil {
			out[i] = &one[0]
		} else if !errors.Is(err, ErrNoHash) {
			return nil, err
		}
	}
	return out, nil
}

// genuine gives the index of the appended entry that the leaf is, or -1.
func (v *verifier) genuine(leaf []byte, hash tlog.Hash) (int64, error) {
	index := claimed(leaf)
	if index < 0 || index >= v.size {
		return -1, nil
	}
	stored, err := v.stored(tlog.StoredHashIndex(0, index), 1)
	if err != nil || stored[0] == nil || *stored[0] != hash {
		return -1, err
	}
	return index, nil
}

// belongs says that a leaf further on is the one that belongs to the mismatch.
func (m *mismatch) belongs(leaf []byte, hash tlog.Hash) bool {
	if m.stored != nil {
		return *m.stored == hash
	}
	return claimed(leaf) == m.index
}

// claimed is the index that a leaf says it has, or -1.
func claimed(leaf []byte) int64 {
	e := Entry{Index: -1}
	if err := json.Unmarshal(leaf, &e); err != nil {
		return -1
	}
	return e.Index
}

// verdict puts together what was seen. intact says that the entries give the root.
func (v *verifier) verdict(intact bool) *Finding {
	n := v.edge.size
	at := func(verdict Verdict, index int64, format string, args ...any) *Finding {
		return &Finding{Verdict: verdict, First: index, Last: index, What: fmt.Sprintf(format, args...)}
	}
	switch {
	case intact && v.leaf != nil:
		return at(Rehashed, v.leaf.index, "the stored hash of entry %d differs from it; the entries give the root", v.leaf.index)
	case intact && v.node != nil:
		f := *v.node
		f.Verdict, f.What = Rehashed, f.What+"; the entries give the root"
		return &f
	case intact:
		return v.malformed
	case v.leaf != nil && v.leaf.index >= v.size:
		return at(Inserted, v.leaf.index, "entry %d stands after the end of the record, which has %d entries", v.leaf.index, v.size)
	case v.leaf != nil:
		return v.leaf.verdict(at)
	case n < v.size:
		return at(Truncated, n, "the record ends with %d of its %d entries", n, v.size)
	case n > v.size:
		return at(Inserted, v.size, "entry %d stands after the end of the record, which has %d entries", v.size, v.size)
	case v.node != nil:
		f := *v.node
		f.Verdict = Altered
		f.What = fmt.Sprintf("an entry of %d to %d, and its stored hash, are not those that were appended", f.First, f.Last)
		return &f
	default:
		return at(Rewritten, -1, "entries and stored hashes agree with each other but not with the root")
	}
}

func (m *mismatch) verdict(at func(Verdict, int64, string, ...any) *Finding) *Finding {
	i := m.index
	copied := m.genuine >= 0 && (m.genuine < i || m.again) // it stands in its own place too
	switch {
	case copied && m.later:
		return at(Inserted, i, "entry %d stands a second time, in the place of entry %d", m.genuine, i)
	case m.later && m.genuine >= 0:
		return at(Reordered, i, "entry %d stands in the place of entry %d, which comes later", m.genuine, i)
	case m.later:
		return at(Inserted, i, "what stands in the place of entry %d was never appended", i)
	case copied:
		return at(Altered, i, "entry %d was overwritten with entry %d", i, m.genuine)
	case m.genuine == i+1:
		return at(Missing, i, "entry %d is missing", i)
	case m.genuine > i:
		f := at(Missing, i, "entries %d to %d are missing", i, m.genuine-1)
		f.Last = m.genuine - 1
		return f
	default:
		return at(Altered, i, "entry %d is not what was appended", i)
	}
}
