package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// files is a log as it is served: a Source.
type files map[string][]byte

func (f files) Read(path string) ([]byte, error) {
	data, ok := f[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// served gives every file of a log, its checkpoint signed.
func served(t testing.TB, l *log, signers ...note.Signer) files {
	t.Helper()
	size := int64(len(l.leaves))
	out := files{"checkpoint": signedBy(t, Checkpoint{Origin: "example.com/log", Size: size, Root: l.root}, signers...)}
	for _, tile := range tlog.NewTiles(tileHeight, 0, size) {
		data, err := TileHashes(tile, l)
		if err != nil {
			t.Fatal(err)
		}
		out[TilePath(tile)] = data
		if tile.L == 0 {
			bundle, err := Bundle(l.leaves[tile.N<<8 : tile.N<<8+int64(tile.W)])
			if err != nil {
				t.Fatal(err)
			}
			tile.L = EntriesLevel
			out[TilePath(tile)] = bundle
		}
	}
	return out
}

// examine is what an auditor does: it opens, reads all, and compares with what was
// seen before.
func examine(a Auditor, seen ...Checkpoint) (*Finding, error) {
	now, finding, err := a.Latest()
	if err != nil || finding != nil {
		return finding, err
	}
	report, err := a.Audit(now.Checkpoint)
	if err != nil || report.Finding != nil {
		return report.Finding, err
	}
	for _, earlier := range seen {
		if finding, err := a.Compare(now.Checkpoint, earlier); err != nil || finding != nil {
			return finding, err
		}
	}
	return nil, nil
}

// An auditor who has the log's key, two witnesses' keys and a checkpoint of before
// finds each of these, and says what it is.
func TestAuditAttacks(t *testing.T) {
	const n, before = 600, 300
	signer, verifier := logKey(t, "example.com/log")
	w1, v1 := witnessOf(t, "one.example/w")
	w2, v2 := witnessOf(t, "two.example/w")
	all := []note.Signer{signer, w1.At(testTime), w2.At(testTime)}
	good := entries(t, n)
	yesterday := entries(t, before)
	seen := Checkpoint{Origin: "example.com/log", Size: before, Root: yesterday.root}
	forked := good.clone()
	forked.leaves[10] = forged(t, 10)
	forked = rehash(t, forked)
	flip := func(path string, at int) func(files) {
		return func(f files) {
			f[path] = bytes.Clone(f[path])
			f[path][at] ^= 4
		}
	}
	for name, c := range map[string]struct {
		log     *log
		signers []note.Signer
		do      func(files)
		want    Verdict
		first   int64
	}{
		"nothing":                             {good, all, nil, "", 0},
		"a bit of the checkpoint's text":      {good, all, flip("checkpoint", 20), Unsigned, -1},
		"a bit of the log's signature":        {good, all, func(f files) { f["checkpoint"][bytes.Index(f["checkpoint"], []byte("log "))+30] ^= 4 }, Unsigned, -1},
		"a checkpoint of another key":         {good, []note.Signer{w1.At(testTime), w2.At(testTime)}, nil, Unsigned, -1},
		"one cosignature of two":              {good, all[:2], nil, Unwitnessed, -1},
		"a bit of a tile":                     {good, all, flip("tile/0/001", 32*7), Rehashed, 256 + 7},
		"a bit of a tile of level 1":          {good, all, flip("tile/1/000.p/2", 40), Rehashed, 256},
		"a bit of an entry":                   {good, all, flip("tile/entries/001", 40), Altered, 256},
		"a bit of an entry's length":          {good, all, flip("tile/entries/002.p/88", 0), Altered, 512},
		"a bundle is not there":               {good, all, func(f files) { delete(f, "tile/entries/002.p/88") }, Truncated, 512},
		"a tile is not there":                 {good, all, func(f files) { delete(f, "tile/0/002.p/88") }, Rehashed, 512},
		"a bundle is another":                 {good, all, func(f files) { f["tile/entries/000"] = f["tile/entries/001"] }, Altered, 0},
		"a bundle is cut":                     {good, all, func(f files) { f["tile/entries/002.p/88"] = f["tile/entries/002.p/88"][:10] }, Malformed, 512},
		"the log is cut, and signed":          {entries(t, before-1), all, nil, RolledBack, -1},
		"the log is that of yesterday":        {entries(t, 0), all, nil, RolledBack, -1},
		"the log is another, and signed":      {forked, all, nil, Forked, -1},
		"another of the same size, as before": {rehashedTo(t, forked, before), all, nil, Forked, -1},
	} {
		t.Run(name, func(t *testing.T) {
			f := served(t, c.log, c.signers...)
			if c.do != nil {
				c.do(f)
			}
			finding, err := examine(Auditor{Source: f, Log: verifier, Witnesses: []note.Verifier{v1, v2}, Quorum: 2}, seen)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case finding == nil && c.want != "":
				t.Fatal("not found")
			case finding != nil && (finding.Verdict != c.want || finding.First != c.first || finding.What == ""):
				t.Errorf("found %+v, want %s of %d", finding, c.want, c.first)
			case finding != nil && c.want == Unwitnessed && !strings.HasSuffix(finding.What, "2 are needed; it lacks two.example/w"):
				t.Errorf("it does not say who is missing: %s", finding.What)
			case finding != nil:
				t.Attr("refused", fmt.Sprintf("%s <- %s", finding.Verdict, name))
			}
		})
	}
}

// rehashedTo is the first n entries of a log.
func rehashedTo(t testing.TB, l *log, n int) *log {
	out := &log{}
	out.append(t, l.leaves[:n]...)
	return out
}

// Comparing reads tiles alone, and believes none that does not give the root.
func TestCompareBelievesNoTile(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	good := entries(t, 600)
	now := Checkpoint{Origin: "example.com/log", Size: 600, Root: good.root}
	seen := Checkpoint{Origin: "example.com/log", Size: 300, Root: entries(t, 300).root}
	for name, c := range map[string]struct {
		do   func(files)
		want Verdict
	}{
		"nothing":       {func(files) {}, ""},
		"a bit":         {func(f files) { f["tile/0/001"][3] ^= 1 }, Rehashed},
		"a short tile":  {func(f files) { f["tile/0/001"] = f["tile/0/001"][:32] }, Rehashed},
		"a tile is not": {func(f files) { delete(f, "tile/1/000.p/2") }, Truncated},
	} {
		f := served(t, good, signer)
		c.do(f)
		finding, err := Auditor{Source: f, Log: verifier}.Compare(now, seen)
		if err != nil || (finding == nil) != (c.want == "") || finding != nil && finding.Verdict != c.want {
			t.Errorf("%s: %+v, %v", name, finding, err)
		}
	}
	broken := errors.New("no route to host")
	failing := Auditor{Source: failing{broken}, Log: verifier}
	if _, err := failing.Compare(now, seen); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := failing.Audit(now); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, _, err := failing.Latest(); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read(string) ([]byte, error) { return nil, f.err }

// Whatever one bit of one served file is, an auditor finds it: every byte of a small
// log, and samples of one that has full tiles and a second level.
func TestAuditFindsEveryFlippedBit(t *testing.T) {
	signer, verifier := logKey(t, "example.com/log")
	found := map[string]int{}
	flip := func(good files, path string, at, bit int) {
		f := maps.Clone(good)
		f[path] = bytes.Clone(f[path])
		f[path][at] ^= 1 << bit
		finding, err := examine(Auditor{Source: f, Log: verifier})
		if err != nil || finding == nil {
			t.Errorf("%s, bit %d of byte %d: %+v, %v", path, bit, at, finding, err)
			return
		}
		found[fmt.Sprintf("%s <- one bit of %s", finding.Verdict, strings.TrimRight(path, "0123456789./p"))]++
	}
	small := served(t, entries(t, 9), signer)
	for path, content := range small {
		for i := range content {
			flip(small, path, i, i%8)
		}
	}
	large := served(t, entries(t, 600), signer)
	paths := slices.Sorted(maps.Keys(large))
	seed := rand.Uint64()
	t.Logf("the samples are of the seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		path := paths[random.IntN(len(paths))]
		flip(large, path, random.IntN(len(large[path])), random.IntN(8))
	}
	for what, n := range found {
		t.Attr("refused", fmt.Sprintf("%s, %d times", what, n))
	}
}

func TestTilePaths(t *testing.T) {
	for path, tile := range map[string]tlog.Tile{
		"tile/0/000":                {H: 8, L: 0, N: 0, W: 256},
		"tile/0/x001/x234/067":      {H: 8, L: 0, N: 1234067, W: 256},
		"tile/2/000.p/1":            {H: 8, L: 2, N: 0, W: 1},
		"tile/entries/000.p/17":     {H: 8, L: -1, N: 0, W: 17},
		"tile/entries/x001/000":     {H: 8, L: -1, N: 1000, W: 256},
		"tile/entries/x001/000.p/9": {H: 8, L: -1, N: 1000, W: 9},
	} {
		if got := TilePath(tile); got != path {
			t.Errorf("%+v is at %s, want %s", tile, got, path)
		}
		if got, err := ParseTilePath(path); err != nil || got != tile {
			t.Errorf("%s is %+v, %v", path, got, err)
		}
	}
	for _, bad := range []string{"", "tile/", "tile/8/0/000", "tile/0/0", "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/data/000",
		"tile/-1/000", "tile/0/../000", "tile/64/000", "tile/0/x000/000", "tile/0/" + strings.Repeat("x999/", 8) + "999", "checkpoint"} {
		if got, err := ParseTilePath(bad); err == nil {
			t.Errorf("%s is %+v", bad, got)
		}
	}
	for _, c := range []struct {
		path string
		size int64
		want bool
	}{{"tile/0/000.p/3", 2, false}, {"tile/0/000.p/3", 3, true}, {"tile/0/000.p/3", 1000, true}, {"tile/0/000", 255, false}, {"tile/0/000", 256, true},
		{"tile/1/000.p/1", 255, false}, {"tile/1/000.p/1", 256, true}, {"tile/entries/001.p/1", 256, false}, {"tile/entries/001.p/1", 257, true}} {
		tile, err := ParseTilePath(c.path)
		if err != nil || HasTile(tile, c.size) != c.want {
			t.Errorf("a log of %d has %s: %v, want %v (%v)", c.size, c.path, !c.want, c.want, err)
		}
	}
}

func FuzzTile(f *testing.F) {
	f.Add("tile/0/x001/x234/067", []byte{0, 1, 'a', 0, 0})
	f.Add("tile/entries/000.p/17", []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, path string, bundle []byte) {
		if tile, err := ParseTilePath(path); err == nil && (TilePath(tile) != path || tile.W < 1 || tile.W > 256 || HasTile(tile, 0)) {
			t.Errorf("%s is %+v", path, tile)
		}
		leaves, err := ParseBundle(bundle)
		if err != nil {
			return
		}
		if again, err := Bundle(leaves); err != nil || !bytes.Equal(again, bundle) {
			t.Errorf("%q, then %q, %v", bundle, again, err)
		}
	})
}
