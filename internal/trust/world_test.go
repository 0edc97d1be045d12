package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/record"
)

var (
	now      = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	artifact = digest.FromString("the artifact")
	another  = digest.FromString("another artifact")
)

// world is an organisation: keys, a trust root, and a log that it trusts.
type world struct {
	t       testing.TB
	keys    map[string]*ecdsa.PrivateKey
	chain   *Chain
	log     note.Signer
	logKey  string
	witness *record.Witness
	leaves  [][]byte
	hashes  []tlog.Hash
}

const origin = "log.example"

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	for _, name := range []string{"root1", "root2", "root3", "release", "builder", "builder2", "rebuilder", "approver", "deployer", "stranger"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w.keys[name] = key
	}
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	w.logKey = public
	if w.log, err = note.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	w.witness = record.WitnessFromSeed("w.example/1", make([]byte, 32))
	r := Root{Expires: now.AddDate(1, 0, 0), Keys: map[KeyID]Key{}, Roles: map[Role]Holders{}, Logs: map[string]Log{
		origin: {Key: public, Witnesses: []string{w.witness.PublicKey()}, Quorum: 1},
	}}
	w.give(&r, RoleRoot, 2, "root1", "root2", "root3")
	for _, role := range []Role{RoleRelease, RoleBuilder, RoleRebuilder, RoleApprover, RoleDeployer} {
		w.give(&r, role, 1, string(role))
	}
	w.chain = w.must((*Chain)(nil).Extend(r, w.signers("root1", "root2"), rand.Reader))
	return w
}

func (w *world) must(c *Chain, err error) *Chain {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) id(name string) KeyID { return w.public(name).ID() }

func (w *world) public(name string) PublicKey {
	w.t.Helper()
	k, err := NewPublicKey(w.keys[name].Public())
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// give gives a role to keys, and takes it from others.
func (w *world) give(r *Root, role Role, threshold int, names ...string) {
	h := Holders{Threshold: threshold}
	for _, name := range names {
		k := w.public(name)
		r.Keys[k.ID()] = NewKey(k, name)
		h.KeyIDs = append(h.KeyIDs, k.ID())
	}
	r.Roles[role] = h
}

func (w *world) signers(names ...string) []crypto.Signer {
	var out []crypto.Signer
	for _, name := range names {
		out = append(out, w.keys[name])
	}
	return out
}

// extend makes the next version of the trust root.
func (w *world) extend(change func(*Root)) {
	w.t.Helper()
	r := w.chain.Latest().Clone()
	change(&r)
	w.chain = w.must(w.chain.Extend(r, w.signers("root1", "root3"), rand.Reader))
}

// ReadHashes is tlog.HashReader.
func (w *world) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, w.hashes[i])
	}
	return out, nil
}

// append adds a leaf to the log and gives its index.
func (w *world) append(leaf []byte) int64 {
	w.t.Helper()
	n := int64(len(w.leaves))
	hashes, _, err := record.Append(n, [][]byte{leaf}, w)
	if err != nil {
		w.t.Fatal(err)
	}
	w.leaves, w.hashes = append(w.leaves, leaf), append(w.hashes, hashes...)
	return n
}

func (w *world) checkpoint(signers ...note.Signer) []byte {
	w.t.Helper()
	root, err := record.Root(int64(len(w.leaves)), w)
	if err != nil {
		w.t.Fatal(err)
	}
	signed, err := record.Checkpoint{Origin: origin, Size: int64(len(w.leaves)), Root: root}.Sign(signers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// say has a key make a statement and, logged, puts it into the log.
func (w *world) say(name, kind string, about digest.Digest, logged bool) Bundle {
	w.t.Helper()
	k, ok := KindOf(kind)
	if !ok {
		w.t.Fatal(kind)
	}
	s, err := NewStatement(k, "", about, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := Sign(s, w.keys[name], rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if logged {
		w.record(name, &b)
	}
	return b
}

func (w *world) record(name string, b *Bundle) {
	w.t.Helper()
	body, err := b.LogEntry(w.public(name))
	if err != nil {
		w.t.Fatal(err)
	}
	index := w.append(body)
	w.append(fmt.Appendf(nil, "something else %d", index))
	proof, err := record.ProveInclusion(int64(len(w.leaves)), index, w)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := note.NewVerifier(w.logKey)
	if err != nil {
		w.t.Fatal(err)
	}
	b.Log = &Logged{LogID: LogID(v, w.logKey), Body: body,
		Proof: record.InclusionProof{Index: index, Leaf: body, Hashes: proof, Checkpoint: w.checkpoint(w.log, w.witness.At(now))}}
}

func (w *world) marshal(b Bundle) []byte {
	w.t.Helper()
	text, err := b.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func want(kind string) Want {
	k, _ := KindOf(kind)
	return Want{Kind: k, About: artifact}
}

// expect compares a verdict.
func expect(t testing.TB, what string, err error, verdict Verdict) {
	t.Helper()
	var r *Refusal
	switch {
	case verdict == "" && err != nil:
		t.Errorf("%s: %v, and should be believed", what, err)
	case verdict != "" && !errors.As(err, &r):
		t.Errorf("%s: %v, want %s", what, err, verdict)
	case verdict != "" && (r.Verdict != verdict || r.What == ""):
		t.Errorf("%s: %s (%s), want %s", what, r.Verdict, r.What, verdict)
	case verdict != "":
		t.Attr("refused", fmt.Sprintf("%s <- %s", verdict, what))
	}
}

// samples draws, of a seed that it prints.
func samples(t *testing.T) *mathrand.Rand {
	t.Helper()
	seed := mathrand.Uint64()
	t.Logf("the samples are of the seed %d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

// flips tells what became of so many documents with one bit that is another.
func flips(t testing.TB, what string, verdicts map[Verdict]int) {
	t.Helper()
	for v, n := range verdicts {
		if v != "" {
			t.Attr("refused", fmt.Sprintf("%s <- one bit of %s, %d times", v, what, n))
		}
	}
	t.Logf("%s: %d say the very same", what, verdicts[""])
}
