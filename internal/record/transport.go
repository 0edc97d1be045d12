package record

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// maxProof is the number of hashes of the longest proof.
const maxProof = 63

// InclusionProof is a proof that an entry is in a log, checkable without it:
// https://c2sp.org/tlog-proof. The entry itself is its extra data.
type InclusionProof struct {
	Index      int64
	Leaf       []byte // the entry's bytes
	Hashes     tlog.RecordProof
	Checkpoint []byte // signed, with its cosignatures
}

const proofHead = "c2sp.org/tlog-proof@v1\n"

// Marshal gives the proof as text.
func (p InclusionProof) Marshal() []byte {
	out := fmt.Appendf(nil, "%sextra %s\nindex %d\n", proofHead, base64.StdEncoding.EncodeToString(p.Leaf), p.Index)
	for _, h := range p.Hashes {
		out = fmt.Appendf(out, "%s\n", h)
	}
	return append(append(out, '\n'), p.Checkpoint...)
}

// ParseInclusionProof reads what Marshal wrote.
func ParseInclusionProof(text []byte) (InclusionProof, error) {
	var p InclusionProof
	rest, ok := strings.CutPrefix(string(text), proofHead)
	if !ok || len(text) > 2*MaxLeaf+MaxCheckpoint {
		return p, errors.New("record: not a proof of inclusion, which begins with c2sp.org/tlog-proof@v1")
	}
	head, checkpoint, ok := strings.Cut(rest, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 2 {
		return p, errors.New("record: a proof of inclusion has entry, index, hashes, an empty line and a checkpoint")
	}
	extra, ok1 := strings.CutPrefix(lines[0], "extra ")
	index, ok2 := strings.CutPrefix(lines[1], "index ")
	leaf, err := base64.StdEncoding.Strict().DecodeString(extra)
	if err != nil || !ok1 || !ok2 || strings.ContainsAny(extra, "\r\n") {
		return p, errors.New("record: a proof of inclusion has the lines extra and index")
	}
	if p.Index, err = parseSize(index); err != nil {
		return p, err
	}
	hashes, err := parseHashes(lines[2:])
	p.Leaf, p.Hashes, p.Checkpoint = leaf, hashes, []byte(checkpoint)
	return p, err
}

func parseHashes(lines []string) ([]tlog.Hash, error) {
	if len(lines) > maxProof {
		return nil, fmt.Errorf("record: a proof has %d hashes; the limit is %d", len(lines), maxProof)
	}
	var out []tlog.Hash
	for _, line := range lines {
		h, err := parseHash(line)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// Check says whether the proof holds for the log: nil, or a fault of kind Refused.
func (p InclusionProof) Check(log note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, log)
	if err != nil {
		return c, fault.New(fault.Refused, "%w", err).Detail("verdict: " + string(Unsigned))
	}
	return c, CheckInclusion(p.Hashes, c.Size, c.Root, p.Index, p.Leaf)
}

// ConsistencyProof is a proof that a log begins with what it was, as witnesses are
// asked: https://c2sp.org/tlog-witness.
type ConsistencyProof struct {
	Old        int64 // entries that it had
	Hashes     tlog.TreeProof
	Checkpoint []byte // signed: what it is
}

// Marshal gives the proof as text.
func (p ConsistencyProof) Marshal() []byte {
	out := fmt.Appendf(nil, "old %d\n", p.Old)
	for _, h := range p.Hashes {
		out = fmt.Appendf(out, "%s\n", h)
	}
	return append(append(out, '\n'), p.Checkpoint...)
}

// ParseConsistencyProof reads what Marshal wrote.
func ParseConsistencyProof(text []byte) (ConsistencyProof, error) {
	var p ConsistencyProof
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	rest, ok2 := strings.CutPrefix(head, "old ")
	if !ok || !ok2 || len(text) > 2*MaxCheckpoint {
		return p, errors.New("record: a proof of consistency has a line old, hashes, an empty line and a checkpoint")
	}
	lines := strings.Split(rest, "\n")
	old, err := parseSize(lines[0])
	if err != nil {
		return p, err
	}
	hashes, err := parseHashes(lines[1:])
	p.Old, p.Hashes, p.Checkpoint = old, slices.Clip(hashes), []byte(checkpoint)
	return p, err
}
