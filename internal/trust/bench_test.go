package trust

import (
	"crypto/rand"
	"testing"
)

// BenchmarkSign is what a statement costs whose key is open.
func BenchmarkSign(b *testing.B) {
	w := newWorld(b)
	k, _ := KindOf("provenance")
	s, err := NewStatement(k, "", artifact, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Sign(s, w.keys["builder"], rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is what judging one bundle costs: signature, proof, cosignature.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	bundle := w.marshal(w.say("builder", "provenance", artifact, true))
	for b.Loop() {
		if _, err := w.chain.Verify(bundle, want("provenance"), now); err != nil {
			b.Fatal(err)
		}
	}
}
