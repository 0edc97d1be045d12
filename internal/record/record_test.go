package record

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// log is a record in memory: leaves and stored hashes.
type log struct {
	leaves [][]byte
	hashes []tlog.Hash
	root   tlog.Hash
}

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index < 0 || index >= int64(len(l.hashes)) {
			return nil, fmt.Errorf("hash %d: %w", index, ErrNoHash)
		}
		out[i] = l.hashes[index]
	}
	return out, nil
}

func (l *log) append(t testing.TB, leaves ...[]byte) {
	t.Helper()
	hashes, root, err := Append(int64(len(l.leaves)), leaves, l)
	if err != nil {
		t.Fatal(err)
	}
	l.leaves, l.hashes, l.root = append(l.leaves, leaves...), append(l.hashes, hashes...), root
}

func (l *log) all() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range l.leaves {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

func (l *log) clone() *log {
	return &log{leaves: slices.Clone(l.leaves), hashes: slices.Clone(l.hashes), root: l.root}
}

func entry(index int) Entry {
	return Entry{
		Index: int64(index), Time: time.Date(2026, 1, 2, 3, 4, 5+index%50, 678, time.UTC),
		Actor: "root@host", Kind: "rollout.started", App: "site", Env: "production",
		Release: digest.FromString("release"), Rollout: 1, Reason: fmt.Sprintf("reason %d", index), Data: map[string]string{"number": "1"},
	}
}

func leafOf(t testing.TB, e Entry) []byte {
	t.Helper()
	leaf, err := e.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func entries(t testing.TB, n int) *log {
	t.Helper()
	l := &log{}
	for i := range n {
		l.append(t, leafOf(t, entry(i)))
	}
	if n == 0 {
		l.append(t)
	}
	return l
}

func TestLeafGolden(t *testing.T) {
	e := entry(7)
	e.Time = e.Time.In(time.FixedZone("elsewhere", 3600))
	e.Reason = `a <b> & "c"`
	const want = `{"actor":"root@host","app":"site","data":{"number":"1"},"env":"production","index":7,"kind":"rollout.started",` +
		`"reason":"a <b> & \"c\"","release":"sha256:a4d451ec23463726f72c43d64c710968f6b602cd653b4de8adee1b556240a829","rollout":1,"time":"2026-01-02T03:04:12.000000678Z"}`
	got := string(leafOf(t, e))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("leaf (-want +got):\n%s", d)
	}
	if _, err := (Entry{Kind: "a"}).Leaf(); err == nil {
		t.Error("an entry without an actor has a leaf")
	}
	if _, err := (Entry{Kind: "a", Actor: "b", Reason: strings.Repeat("x", MaxLeaf)}).Leaf(); err == nil {
		t.Error("an entry beyond the limit has a leaf")
	}
}

func TestParseLeafRefusesOtherBytes(t *testing.T) {
	leaf := string(leafOf(t, entry(0)))
	for name, bad := range map[string]string{
		"white space": leaf + " ",
		"unknown key": strings.Replace(leaf, `"actor"`, `"a":1,"actor"`, 1),
		"key twice":   strings.Replace(leaf, `"actor"`, `"actor":"x","actor"`, 1),
		"other zone":  strings.Replace(leaf, `000678Z`, `000678+00:00`, 1),
		"no kind":     strings.Replace(leaf, `rollout.started`, ``, 1),
		"two":         leaf + leaf,
		"empty":       "",
		"null":        "null",
	} {
		if bad == leaf {
			t.Fatalf("%s: the test changed nothing", name)
		}
		if _, err := ParseLeaf([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLeafProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Entry{
			Index: rapid.Int64Range(0, 1<<53-1).Draw(t, "index"),
			Time:  time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")),
			Actor: rapid.StringN(1, 20, -1).Draw(t, "actor"), Kind: "a.b",
			Reason: rapid.String().Draw(t, "reason"),
			Data:   rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "data"),
		}
		leaf, err := e.Leaf()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseLeaf(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, back, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("ParseLeaf(Leaf) (-want +got):\n%s", d)
		}
	})
}

func FuzzParseLeaf(f *testing.F) {
	f.Add(leafOf(f, entry(3)))
	f.Add([]byte(`{"actor":"a","index":0,"kind":"k","time":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		e, err := ParseLeaf(leaf)
		if err != nil {
			return
		}
		if again, err := e.Leaf(); err != nil || string(again) != string(leaf) {
			t.Fatalf("ParseLeaf accepted bytes that Leaf does not write:\n%q\n%q (%v)", leaf, again, err)
		}
	})
}

// The leaves and roots that Certificate Transparency implementations share:
// https://github.com/google/certificate-transparency, MerkleTreeTest.
func TestRootsOfCertificateTransparency(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	l := &log{}
	for i, text := range leaves {
		leaf, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		l.append(t, leaf)
		if got := hex.EncodeToString(l.root[:]); got != roots[i] {
			t.Errorf("root of %d = %s, want %s", i+1, got, roots[i])
		}
	}
}

// Appending in any portions gives the same hashes and roots as tlog gives leaf by leaf.
func TestAppendProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var one, many log
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 20), 1, 12).Draw(rt, "portions") {
			var leaves [][]byte
			for range n {
				leaf := fmt.Appendf(nil, "leaf %d", len(one.leaves))
				hashes, err := tlog.StoredHashes(int64(len(one.leaves)), leaf, &one)
				if err != nil {
					rt.Fatal(err)
				}
				one.leaves, one.hashes = append(one.leaves, leaf), append(one.hashes, hashes...)
				leaves = append(leaves, leaf)
			}
			many.append(t, leaves...)
			root, err := Root(int64(len(one.leaves)), &one)
			if err != nil || root != many.root {
				rt.Fatalf("root of %d = %s, want %s (%v)", len(one.leaves), many.root, root, err)
			}
		}
		if diff := cmp.Diff(one.hashes, many.hashes); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestProofs(t *testing.T) {
	const n = 21
	l := entries(t, n)
	for size := int64(1); size <= n; size++ {
		root, err := Root(size, l)
		if err != nil {
			t.Fatal(err)
		}
		for index := range size {
			proof, err := ProveInclusion(size, index, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(proof, size, root, index, l.leaves[index]); err != nil {
				t.Error(err)
			}
			refused(t, CheckInclusion(proof, size, root, index, append(slices.Clone(l.leaves[index]), ' ')))
			refused(t, CheckInclusion(proof, size, tlog.Hash{1}, index, l.leaves[index]))
			refused(t, CheckInclusion(append(slices.Clone(proof), tlog.Hash{}), size, root, index, l.leaves[index]))
			refused(t, CheckInclusion(proof, size, root, (index+1)%(size+1), l.leaves[index]))
		}
		for old := range size + 1 {
			oldRoot, err := Root(old, l)
			if err != nil {
				t.Fatal(err)
			}
			proof, err := ProveConsistency(old, size, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(proof, old, oldRoot, size, root); err != nil {
				t.Error(err)
			}
			refused(t, CheckConsistency(proof, old, tlog.Hash{1}, size, root))
			refused(t, CheckConsistency(append(slices.Clone(proof), tlog.Hash{}), old, oldRoot, size, root))
			if old > 0 && old < size {
				refused(t, CheckConsistency(proof, old, oldRoot, size, tlog.Hash{1}))
			}
		}
	}
	for _, f := range []func() error{
		func() error { _, err := ProveInclusion(n, n, l); return err },
		func() error { _, err := ProveInclusion(n, -1, l); return err },
		func() error { _, err := ProveConsistency(n+1, n, l); return err },
	} {
		if e := fault.Of(f()); e == nil || e.Kind != fault.NotFound {
			t.Errorf("a proof about what is not there: %v", e)
		}
	}
}

// A fork: two records that share a beginning and differ after it. Neither can be
// shown to begin with the other.
func TestForkIsNotConsistent(t *testing.T) {
	a, b := entries(t, 8), entries(t, 5)
	for i := 5; i < 12; i++ {
		e := entry(i)
		e.Reason = "another history"
		b.append(t, leafOf(t, e))
	}
	proof, err := ProveConsistency(8, 12, b)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, CheckConsistency(proof, 8, a.root, 12, b.root))
}

func refused(t *testing.T, err error) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Refused {
		t.Errorf("got %v, want a refusal", err)
	}
}
