package record

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Source gives the files of a log by their paths: "checkpoint", "tile/0/000". What
// the log has not is fs.ErrNotExist; other errors end what was begun. Nothing that
// it gives is believed.
type Source interface {
	Read(path string) ([]byte, error)
}

// Auditor looks at a log from outside, with nothing but keys and what was seen
// before. It is to be used once.
type Auditor struct {
	Source    Source
	Log       note.Verifier   // the log's key
	Witnesses []note.Verifier // whose cosignatures count
	Quorum    int             // how many of them are needed
}

// Seen is a checkpoint whose signatures were checked.
type Seen struct {
	Checkpoint
	Cosignatures []Cosignature `json:"cosignatures,omitempty"`
	Signed       []byte        `json:"-"` // the note
}

// Open checks the signatures of a checkpoint.
func (a Auditor) Open(signed []byte) (Seen, *Finding) {
	c, err := OpenCheckpoint(signed, a.Log)
	if err != nil {
		return Seen{}, &Finding{Verdict: Unsigned, First: -1, Last: -1, What: err.Error()}
	}
	seen := Seen{Checkpoint: c, Cosignatures: Cosignatures(signed, a.Witnesses), Signed: signed}
	if len(seen.Cosignatures) < a.Quorum {
		return seen, &Finding{Verdict: Unwitnessed, First: -1, Last: -1,
			What: fmt.Sprintf("the checkpoint of %d entries has %d valid cosignatures of %d witnesses; %d are needed; it lacks %s",
				c.Size, len(seen.Cosignatures), len(a.Witnesses), a.Quorum, strings.Join(a.absent(seen), ", "))}
	}
	return seen, nil
}

// absent are the witnesses that did not cosign.
func (a Auditor) absent(seen Seen) []string {
	var out []string
	for _, w := range a.Witnesses {
		if !slices.ContainsFunc(seen.Cosignatures, func(c Cosignature) bool { return c.Witness == w.Name() }) {
			out = append(out, w.Name())
		}
	}
	return out
}

// Latest reads the log's checkpoint and checks its signatures.
func (a Auditor) Latest() (Seen, *Finding, error) {
	signed, err := a.Source.Read("checkpoint")
	if err != nil {
		return Seen{}, nil, fmt.Errorf("read the checkpoint: %w", err)
	}
	seen, finding := a.Open(signed)
	return seen, finding, nil
}

// Compare says whether the log, as now tells of it, begins with what an earlier
// checkpoint said. It reads O(log n) tiles and believes those that give now's root.
func (a Auditor) Compare(now, earlier Checkpoint) (*Finding, error) {
	at := func(verdict Verdict, format string, args ...any) *Finding {
		return &Finding{Verdict: verdict, First: -1, Last: -1, What: fmt.Sprintf(format, args...)}
	}
	switch {
	case earlier.Origin != now.Origin:
		return at(Unsigned, "the checkpoint that was seen before is of the log %q, this is %q", clipped(earlier.Origin), clipped(now.Origin)), nil
	case earlier.Size > now.Size:
		return at(RolledBack, "the log has %d entries; it had %d", now.Size, earlier.Size), nil
	}
	tiles := &tileSource{source: a.Source}
	root, err := tlog.TreeHash(earlier.Size, tlog.TileHashReader(tlog.Tree{N: now.Size, Hash: now.Root}, tiles))
	switch {
	case earlier.Size == now.Size:
		root = now.Root // the same tree, whatever its tiles are
	case errors.Is(tiles.failed, fs.ErrNotExist):
		return at(Truncated, "the log lacks %s, which a log of %d entries has", tiles.failedPath, now.Size), nil
	case tiles.failed != nil:
		return nil, fmt.Errorf("read %s: %w", tiles.failedPath, tiles.failed)
	case err != nil:
		return at(Rehashed, "the tiles of the log do not give the root of its checkpoint of %d entries", now.Size), nil
	}
	if root != earlier.Root {
		return at(Forked, "the first %d entries have another root than the checkpoint that was seen before: %s, not %s", earlier.Size, root, earlier.Root), nil
	}
	return nil, nil
}

// Audit reads every entry and every tile of the log and compares them with each
// other and with the checkpoint, as Verify does with a record at home.
func (a Auditor) Audit(now Checkpoint) (Report, error) {
	e := &entrySource{source: a.Source, size: now.Size}
	report, err := Verify(e.leaves(), &hashSource{source: a.Source, size: now.Size, tiles: map[int]cachedTile{}}, now.Size, now.Root)
	if err == nil && e.broken != nil && (report.Finding == nil || report.Finding.Verdict == Truncated) {
		report.Finding = e.broken
	}
	return report, err
}

// tileSource is tlog.TileReader.
type tileSource struct {
	source     Source
	failed     error
	failedPath string
}

// Height is tlog.TileReader.
func (*tileSource) Height() int { return tileHeight }

// ReadTiles is tlog.TileReader.
func (s *tileSource) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		path := TilePath(t)
		data, err := s.source.Read(path)
		if err != nil {
			s.failed, s.failedPath = err, path
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

// SaveTiles is tlog.TileReader; nothing is kept.
func (*tileSource) SaveTiles([]tlog.Tile, [][]byte) {}

// hashSource reads hashes from tiles as they are, without believing them. It keeps
// the last tile of each level.
type hashSource struct {
	source Source
	size   int64
	tiles  map[int]cachedTile // by level
}

type cachedTile struct {
	tile tlog.Tile
	data []byte
}

// ReadHashes is tlog.HashReader.
func (s *hashSource) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		small := tlog.TileForIndex(tileHeight, index)
		t := TileOf(small.L, small.N*tileWidth, s.size)
		if t.W < small.W {
			return nil, ErrNoHash
		}
		data, err := s.tile(t)
		if err != nil {
			return nil, err
		}
		if out[i], err = tlog.HashFromTile(t, data, index); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoHash, err)
		}
	}
	return out, nil
}

func (s *hashSource) tile(t tlog.Tile) ([]byte, error) {
	if c, ok := s.tiles[t.L]; ok && c.tile == t {
		return c.data, nil
	}
	data, err := s.source.Read(TilePath(t))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoHash, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", TilePath(t), err)
	}
	s.tiles[t.L] = cachedTile{t, data}
	return data, nil
}

// entrySource reads the bundles one after another.
type entrySource struct {
	source Source
	size   int64
	broken *Finding // where a bundle breaks off
}

func (s *entrySource) leaves() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for n := int64(0); n < s.size; n += tileWidth {
			t := TileOf(EntriesLevel, n, s.size)
			data, err := s.source.Read(TilePath(t))
			if errors.Is(err, fs.ErrNotExist) {
				return // it ends here: Verify says so
			}
			if err != nil {
				yield(nil, fmt.Errorf("read %s: %w", TilePath(t), err))
				return
			}
			leaves, err := ParseBundle(data)
			for _, leaf := range leaves {
				if !yield(leaf, nil) {
					return
				}
			}
			if at := n + int64(len(leaves)); err != nil {
				s.broken = &Finding{Verdict: Malformed, First: at, Last: at, What: fmt.Sprintf("%s breaks off at entry %d", TilePath(t), at)}
				return
			}
		}
	}
}
