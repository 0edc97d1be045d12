package record

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func verify(t testing.TB, l *log, size int64, root tlog.Hash) Report {
	t.Helper()
	report, err := Verify(l.all(), l, size, root)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestVerifyIntact(t *testing.T) {
	for n := range 40 {
		l := entries(t, n)
		want := Report{Size: int64(n), Root: l.root, Entries: int64(n), Computed: l.root}
		if d := cmp.Diff(want, verify(t, l, int64(n), l.root)); d != "" {
			t.Errorf("%d entries (-want +got):\n%s", n, d)
		}
	}
}

// forged gives entry i with another reason: what an attacker wants it to say.
func forged(t testing.TB, i int) []byte {
	e := entry(i)
	e.Reason = "nothing happened here"
	return leafOf(t, e)
}

// rehash gives the log that somebody writes who has every leaf and recomputes
// every stored hash.
func rehash(t testing.TB, l *log) *log {
	out := &log{}
	out.append(t, l.leaves...)
	return out
}

func TestAttacks(t *testing.T) {
	const n = 13
	leafHash := func(i int64) int64 { return tlog.StoredHashIndex(0, i) }
	for name, attack := range map[string]struct {
		do          func(l *log)
		verdict     Verdict
		first, last int64
	}{
		"flip a bit": {func(l *log) {
			l.leaves[5] = slices.Clone(l.leaves[5])
			l.leaves[5][9] ^= 1
		}, Altered, 5, 5},
		"change the first":                {func(l *log) { l.leaves[0] = forged(t, 0) }, Altered, 0, 0},
		"change the last":                 {func(l *log) { l.leaves[n-1] = forged(t, n-1) }, Altered, n - 1, n - 1},
		"make an entry empty":             {func(l *log) { l.leaves[4] = nil }, Altered, 4, 4},
		"put one entry over another":      {func(l *log) { l.leaves[7] = l.leaves[2] }, Altered, 7, 7},
		"put a later entry over another":  {func(l *log) { l.leaves[2] = l.leaves[5] }, Altered, 2, 2},
		"insert a copy of a later entry":  {func(l *log) { l.leaves = slices.Insert(l.leaves, 6, l.leaves[9]) }, Inserted, 6, 6},
		"drop one":                        {func(l *log) { l.leaves = slices.Delete(l.leaves, 6, 7) }, Missing, 6, 6},
		"drop the first":                  {func(l *log) { l.leaves = slices.Delete(l.leaves, 0, 1) }, Missing, 0, 0},
		"drop three":                      {func(l *log) { l.leaves = slices.Delete(l.leaves, 3, 6) }, Missing, 3, 5},
		"insert a forgery":                {func(l *log) { l.leaves = slices.Insert(l.leaves, 6, forged(t, 6)) }, Inserted, 6, 6},
		"insert a copy":                   {func(l *log) { l.leaves = slices.Insert(l.leaves, 6, l.leaves[2]) }, Inserted, 6, 6},
		"append a forgery":                {func(l *log) { l.leaves = append(l.leaves, forged(t, n)) }, Inserted, n, n},
		"append a forgery and its hashes": {func(l *log) { l.append(t, forged(t, n)) }, Inserted, n, n},
		"swap two":                        {func(l *log) { l.leaves[3], l.leaves[9] = l.leaves[9], l.leaves[3] }, Reordered, 3, 3},
		"swap neighbours":                 {func(l *log) { l.leaves[3], l.leaves[4] = l.leaves[4], l.leaves[3] }, Reordered, 3, 3},
		"truncate":                        {func(l *log) { l.leaves = l.leaves[:10] }, Truncated, 10, 10},
		"truncate with its hashes": {func(l *log) {
			l.leaves, l.hashes = l.leaves[:10], l.hashes[:tlog.StoredHashCount(10)]
		}, Truncated, 10, 10},
		"truncate all":         {func(l *log) { l.leaves, l.hashes = nil, nil }, Truncated, 0, 0},
		"change a leaf's hash": {func(l *log) { l.hashes[leafHash(8)][0] ^= 1 }, Rehashed, 8, 8},
		"change a node's hash": {func(l *log) { l.hashes[tlog.StoredHashIndex(2, 1)][0] ^= 1 }, Rehashed, 4, 7},
		"lose the last hashes": {func(l *log) { l.hashes = l.hashes[:leafHash(11)] }, Rehashed, 11, 11},
		"change an entry and its hash": {func(l *log) {
			l.leaves[6] = forged(t, 6)
			l.hashes[leafHash(6)] = tlog.RecordHash(l.leaves[6])
		}, Altered, 6, 7},
		"change an entry and every hash but the root": {func(l *log) {
			l.leaves[6] = forged(t, 6)
			*l = *rehash(t, l)
		}, Rewritten, -1, -1},
		"two attacks: the first is named": {func(l *log) {
			l.leaves[10] = forged(t, 10)
			l.leaves[4] = forged(t, 4)
		}, Altered, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			good := entries(t, n)
			bad := good.clone()
			attack.do(bad)
			report := verify(t, bad, n, good.root)
			if report.Finding == nil {
				t.Fatal("not found")
			}
			if report.Finding.What == "" {
				t.Error("the finding says nothing")
			}
			got := *report.Finding
			got.What = ""
			if d := cmp.Diff(Finding{Verdict: attack.verdict, First: attack.first, Last: attack.last}, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", report.Finding.What, d)
			}
			t.Attr("refused", fmt.Sprintf("%s <- %s", attack.verdict, name))
		})
	}
}

// What was appended as something that is no entry, or as another one, is found
// although every hash agrees.
func TestVerifyReadsEntries(t *testing.T) {
	for name, leaf := range map[string][]byte{"no entry": []byte("{}"), "another index": leafOf(t, entry(9))} {
		l := entries(t, 4)
		l.append(t, leaf, leafOf(t, entry(5)))
		f := verify(t, l, 6, l.root).Finding
		if f == nil || f.Verdict != Malformed || f.First != 4 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// Whatever is done to the leaves or hashes of a record, it is found; and while
// only leaves change, the entry named is the first that differs.
func TestAttackProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "n")
		good := entries(t, n)
		bad := good.clone()
		leaves := rapid.Bool().Draw(rt, "leaves")
		if leaves {
			attackLeaves(rt, bad)
		} else {
			i := rapid.IntRange(0, len(bad.hashes)-1).Draw(rt, "hash")
			bad.hashes[i][rapid.IntRange(0, 31).Draw(rt, "byte")] ^= 0x40
		}
		finding := verify(t, bad, int64(n), good.root).Finding
		if leaves && slices.EqualFunc(good.leaves, bad.leaves, slices.Equal) {
			if finding != nil {
				rt.Fatalf("nothing was changed: %+v", finding)
			}
			return
		}
		if finding == nil {
			rt.Fatal("not found")
		}
		first := 0
		for first < min(n, len(bad.leaves)) && slices.Equal(good.leaves[first], bad.leaves[first]) {
			first++
		}
		if leaves && finding.First != int64(first) {
			rt.Fatalf("found %+v, want entry %d", finding, first)
		}
		if !leaves && finding.Verdict != Rehashed {
			rt.Fatalf("found %+v, want %s", finding, Rehashed)
		}
	})
}

func attackLeaves(t *rapid.T, l *log) {
	for range rapid.IntRange(1, 3).Draw(t, "attacks") {
		if len(l.leaves) == 0 {
			return
		}
		i := rapid.IntRange(0, len(l.leaves)-1).Draw(t, "i")
		j := rapid.IntRange(0, len(l.leaves)-1).Draw(t, "j")
		switch rapid.SampledFrom([]string{"flip", "drop", "insert", "swap", "truncate"}).Draw(t, "attack") {
		case "flip":
			l.leaves[i] = slices.Clone(l.leaves[i])
			if len(l.leaves[i]) > 0 {
				l.leaves[i][rapid.IntRange(0, len(l.leaves[i])-1).Draw(t, "byte")] ^= 1
			}
		case "drop":
			l.leaves = slices.Delete(l.leaves, i, i+1)
		case "insert":
			l.leaves = slices.Insert(l.leaves, i, fmt.Appendf(nil, "forged %d", j))
		case "swap":
			l.leaves[i], l.leaves[j] = l.leaves[j], l.leaves[i]
		case "truncate":
			l.leaves = l.leaves[:i]
		}
	}
}

func TestVerifyPassesReadErrorsOn(t *testing.T) {
	l := entries(t, 3)
	broken := errors.New("disk on fire")
	leaves := func(yield func([]byte, error) bool) {
		if yield(l.leaves[0], nil) {
			yield(nil, broken)
		}
	}
	if _, err := Verify(iter.Seq2[[]byte, error](leaves), l, 3, l.root); !errors.Is(err, broken) {
		t.Errorf("an entry that cannot be read: %v", err)
	}
	hashes := tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, broken })
	if _, err := Verify(l.all(), hashes, 3, l.root); !errors.Is(err, broken) {
		t.Errorf("a hash that cannot be read: %v", err)
	}
}
