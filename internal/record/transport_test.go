package record

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func TestProofsTravel(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	l := entries(t, 40)
	signed := signedBy(t, Checkpoint{Origin: "example.com/log", Size: 40, Root: l.root}, signer)
	hashes, err := ProveInclusion(40, 17, l)
	if err != nil {
		t.Fatal(err)
	}
	text := InclusionProof{Index: 17, Leaf: l.leaves[17], Hashes: hashes, Checkpoint: signed}.Marshal()
	p, err := ParseInclusionProof(text)
	if err != nil || !bytes.Equal(p.Marshal(), text) {
		t.Fatalf("%v\n%s", err, text)
	}
	if c, err := p.Check(verifier); err != nil || c.Size != 40 {
		t.Errorf("%+v, %v", c, err)
	}
	// Any bit of it counts: it cannot be read, or does not hold, or is of the same.
	for i := range len(text) * 8 {
		bad := bytes.Clone(text)
		bad[i/8] ^= 1 << (i % 8)
		q, err := ParseInclusionProof(bad)
		if err != nil {
			continue
		}
		if _, err := q.Check(verifier); fault.Of(err) == nil || fault.Of(err).Kind != fault.Refused {
			t.Errorf("bit %d: %v\n%s", i, err, bad)
		}
	}
	t.Attr("refused", fmt.Sprintf("not proven <- every one of the %d single bits of an entry's proof", len(text)*8))
	tree, err := ProveConsistency(11, 40, l)
	if err != nil {
		t.Fatal(err)
	}
	text = ConsistencyProof{Old: 11, Hashes: tree, Checkpoint: signed}.Marshal()
	c, err := ParseConsistencyProof(text)
	if err != nil || c.Old != 11 || !bytes.Equal(c.Marshal(), text) {
		t.Fatalf("%+v, %v\n%s", c, err, text)
	}
	if err := CheckConsistency(c.Hashes, 11, rehashedTo(t, l, 11).root, 40, l.root); err != nil {
		t.Error(err)
	}
}

func FuzzProofs(f *testing.F) {
	signer, verifier := logKey(f, "example.com/log")
	l := entries(f, 5)
	signed := signedBy(f, Checkpoint{Origin: "example.com/log", Size: 5, Root: l.root}, signer)
	f.Add(InclusionProof{Index: 2, Leaf: l.leaves[2], Hashes: nil, Checkpoint: signed}.Marshal())
	f.Add(ConsistencyProof{Old: 2, Checkpoint: signed}.Marshal())
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParseInclusionProof(text); err == nil {
			if !bytes.Equal(p.Marshal(), text) {
				t.Errorf("%q becomes %q", text, p.Marshal())
			}
			if _, err := p.Check(verifier); err == nil && !bytes.Equal(p.Leaf, l.leaves[p.Index]) {
				t.Errorf("%q was never appended", p.Leaf)
			}
		}
		if p, err := ParseConsistencyProof(text); err == nil && !bytes.Equal(p.Marshal(), text) {
			t.Errorf("%q becomes %q", text, p.Marshal())
		}
	})
}
