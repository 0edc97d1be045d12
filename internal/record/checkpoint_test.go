package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// logKey is a log's key that is the same in every run.
func logKey(t testing.TB, origin string) (note.Signer, note.Verifier) {
	t.Helper()
	private, public, err := note.GenerateKey(strings.NewReader(strings.Repeat(origin, 32)), origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

func witnessOf(t testing.TB, name string) (*Witness, note.Verifier) {
	t.Helper()
	w := WitnessFromSeed(name, bytes.Repeat([]byte(name[:1]), 32))
	v, err := NewWitnessVerifier(w.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return w, v
}

func signedBy(t testing.TB, c Checkpoint, signers ...note.Signer) []byte {
	t.Helper()
	signed, err := c.Sign(signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestCheckpointText(t *testing.T) {
	const text = "example.com/log\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	c, err := ParseCheckpoint(text)
	if err != nil || c.Text() != text || c.Size != 7 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := ParseCheckpoint(text + "an extension\n"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "\n", "a\n1\n", strings.TrimSuffix(text, "\n"), text + "\n", strings.Replace(text, "7", "07", 1), strings.Replace(text, "7", "-7", 1),
		strings.Replace(text, "7", "+7", 1), strings.Replace(text, "7", "99999999999999999999", 1), strings.Replace(text, "q2I=", "q2J=", 1),
		strings.Replace(text, "q2I=", "q2I", 1), strings.Replace(text, "example.com/log", "", 1),
	} {
		if c, err := ParseCheckpoint(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, c)
		}
	}
}

// Every bit of a signed checkpoint counts: with any of them flipped it is not the
// log's, or it is the same text with the same signature.
func TestFlippedBitInCheckpoint(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	c := Checkpoint{Origin: "example.com/log", Size: 7, Root: tlog.RecordHash([]byte("x"))}
	signed := signedBy(t, c, signer)
	for i := range len(signed) * 8 {
		bad := slices.Clone(signed)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := OpenCheckpoint(bad, verifier); err == nil {
			t.Errorf("bit %d: %q is read as %+v", i, bad, got)
		}
	}
	t.Attr("refused", fmt.Sprintf("%s <- every one of the %d single bits of a checkpoint", Unsigned, len(signed)*8))
	other, _ := logKey(t, "example.com/other")
	if _, err := OpenCheckpoint(signedBy(t, c, other), verifier); err == nil {
		t.Error("another log's signature counts")
	}
	c.Origin = "example.com/other"
	if _, err := OpenCheckpoint(signedBy(t, c, signer), verifier); err == nil {
		t.Error("a checkpoint of another log counts")
	}
}

func TestCosignatures(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	w1, v1 := witnessOf(t, "one.example/w")
	w2, v2 := witnessOf(t, "two.example/w")
	_, v3 := witnessOf(t, "three.example/w")
	c := Checkpoint{Origin: "example.com/log", Size: 7, Root: tlog.RecordHash([]byte("x"))}
	signed := signedBy(t, c, signer, w1.At(testTime), w2.At(testTime.Add(time.Second)))
	got := Cosignatures(signed, []note.Verifier{v1, v2, v3, v1})
	if len(got) != 2 || got[0].Witness != "one.example/w" || !got[0].Time.Equal(testTime) || !got[1].Time.Equal(testTime.Add(time.Second)) {
		t.Errorf("%+v", got)
	}
	if _, err := OpenCheckpoint(signed, verifier); err != nil {
		t.Error(err)
	}
	// A cosignature is of its time: with another it is none.
	text, sigs, _ := strings.Cut(string(signed), "\n\n")
	lines := strings.Split(sigs, "\n")
	raw, err := base64.StdEncoding.DecodeString(lines[1][strings.LastIndex(lines[1], " ")+1:])
	if err != nil {
		t.Fatal(err)
	}
	raw[11]++
	lines[1] = lines[1][:strings.LastIndex(lines[1], " ")+1] + base64.StdEncoding.EncodeToString(raw)
	if got := Cosignatures([]byte(text+"\n\n"+strings.Join(lines, "\n")), []note.Verifier{v1, v2}); len(got) != 1 {
		t.Errorf("a changed time: %+v", got)
	}
}

// What others make of the specification (github.com/transparency-dev/formats)
// accepts our cosignatures and keys, and we theirs.
func TestCosignaturesAgreeWithOthers(t *testing.T) {
	seed := bytes.Repeat([]byte("w"), 32)
	ours := WitnessFromSeed("w.example/1", seed)
	plain, err := note.NewEd25519VerifierKey("w.example/1", ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	spelled, err := formats.VKeyToCosignatureV1(plain)
	if err != nil || spelled != ours.PublicKey() {
		t.Errorf("the public key is %s, others spell it %s (%v)", ours.PublicKey(), spelled, err)
	}
	theirs, err := formats.NewVerifierForCosignatureV1(plain)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: "example.com/log", Size: 7}
	n, err := note.Open(signedBy(t, c, ours.At(testTime)), note.VerifierList(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := formats.CoSigV1Timestamp(n.Sigs[0]); err != nil || !at.Equal(testTime) {
		t.Errorf("cosigned at %s, %v", at, err)
	}
	private, _, err := note.GenerateKey(bytes.NewReader(seed), "w.example/1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := formats.NewSignerForCosignatureV1(private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewWitnessVerifier(ours.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if got := Cosignatures(signedBy(t, c, other), []note.Verifier{v}); len(got) != 1 {
		t.Errorf("their cosignature: %+v", got)
	}
}

func TestWitnessKeys(t *testing.T) {
	w, _ := witnessOf(t, "one.example/w")
	again, err := NewWitness(w.PrivateKey())
	if err != nil || again.PublicKey() != w.PublicKey() {
		t.Errorf("%v", err)
	}
	_, public, err := note.GenerateKey(bytes.NewReader(make([]byte, 64)), "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "a", public, w.PrivateKey(), "two" + w.PublicKey()[3:], strings.Replace(w.PublicKey(), "+", " ", 1), w.PublicKey() + "A"} {
		if _, err := NewWitnessVerifier(bad); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
	for _, bad := range []string{"", w.PublicKey(), "PRIVATE+KEY+" + w.PublicKey(), strings.Replace(w.PrivateKey(), "one", "two", 1)} {
		if _, err := NewWitness(bad); err == nil {
			t.Errorf("%q is a private key", bad)
		}
	}
}

func TestSplitCheckpoints(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	a := signedBy(t, Checkpoint{Origin: "example.com/log", Size: 7}, signer)
	b := signedBy(t, Checkpoint{Origin: "example.com/log", Size: 8}, signer)
	got, err := SplitCheckpoints(slices.Concat(a, []byte("\n"), b))
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], b) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := OpenCheckpoint(got[1], verifier); err != nil {
		t.Error(err)
	}
	if got, err := SplitCheckpoints(nil); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range [][]byte{[]byte("text\n"), a[:len(a)/3], slices.Concat(a, []byte("\nx\n"))} {
		if got, err := SplitCheckpoints(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	signer, verifier := logKey(f, "example.com/log")
	f.Add(signedBy(f, Checkpoint{Origin: "example.com/log", Size: 7}, signer))
	f.Add([]byte("a\n1\nAAAA\n\n— a b\n"))
	_, witness := witnessOf(f, "one.example/w")
	f.Fuzz(func(t *testing.T, signed []byte) {
		c, err := OpenCheckpoint(signed, verifier)
		if err == nil && c.Size != 7 {
			t.Errorf("%q was never signed", signed)
		}
		Cosignatures(signed, []note.Verifier{witness})
		if c, err := ParseCheckpoint(string(signed)); err == nil && !strings.HasPrefix(string(signed), c.Text()) {
			t.Errorf("%q is read as %q", signed, c.Text())
		}
		notes, err := SplitCheckpoints(signed)
		if err == nil && len(notes) > 0 {
			if again, err := SplitCheckpoints(bytes.Join(notes, []byte("\n"))); err != nil || len(again) != len(notes) {
				t.Errorf("%q: %d checkpoints, then %d, %v", signed, len(notes), len(again), err)
			}
		}
		if v, err := NewWitnessVerifier(string(signed)); err == nil && !ValidOrigin(v.Name()) {
			t.Errorf("%q names a witness %q", signed, v.Name())
		}
	})
}
