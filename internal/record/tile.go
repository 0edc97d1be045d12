package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A log is served as files that never change, https://c2sp.org/tlog-tiles: tiles of
// 256 hashes, and bundles of the 256 entries beneath each tile of level 0. Only
// the checkpoint changes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	// EntriesLevel is tlog.Tile.L of a bundle of entries.
	EntriesLevel = -1
)

// TilePath is where a tile, or with L EntriesLevel a bundle, is served.
func TilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), "tile/8/")
	if rest, ok := strings.CutPrefix(path, "data/"); ok {
		path = "entries/" + rest
	}
	return "tile/" + path
}

// ParseTilePath reads what TilePath wrote and refuses all else.
func ParseTilePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 100 {
		return tlog.Tile{}, fmt.Errorf("record: %q is not the path of a tile", clipped(path))
	}
	if n, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + n
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	if err != nil || TilePath(t) != path || t.L > 7 || t.N > 1<<40 {
		return tlog.Tile{}, fmt.Errorf("record: %q is not the path of a tile", clipped(path))
	}
	return t, nil
}

// TileOf is the tile of a level that holds the n-th hash of that level, as wide
// as a log of the given size has it. Its width is 0 if the log has no such hash.
func TileOf(level int, n, size int64) tlog.Tile {
	t := tlog.Tile{H: tileHeight, L: level, N: n / tileWidth}
	t.W = int(min(tileWidth, size>>(tileHeight*max(level, 0))-t.N*tileWidth))
	if t.W < 0 {
		t.W = 0
	}
	return t
}

// HasTile says whether a log of the given size has the tile.
func HasTile(t tlog.Tile, size int64) bool {
	return t.W <= TileOf(t.L, t.N*tileWidth, size).W
}

// TileHashes gives the tile's bytes.
func TileHashes(t tlog.Tile, r tlog.HashReader) ([]byte, error) {
	data, err := tlog.ReadTileData(t, r)
	if err != nil {
		return nil, fmt.Errorf("record: %s: %w", TilePath(t), err)
	}
	return data, nil
}

// Bundle gives leaves as they are served: each after its length, two bytes.
func Bundle(leaves [][]byte) ([]byte, error) {
	var out []byte
	for i, leaf := range leaves {
		if len(leaf) > MaxLeaf {
			return nil, fmt.Errorf("record: leaf %d of the bundle has %d bytes; the limit is %d", i, len(leaf), MaxLeaf)
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(leaf))), leaf...)
	}
	return out, nil
}

// errBundle is the end of a bundle amid a leaf.
var errBundle = errors.New("record: a bundle of entries breaks off")

// ParseBundle reads the leaves of a bundle. With an error it gives those before
// the damage.
func ParseBundle(bundle []byte) ([][]byte, error) {
	var leaves [][]byte
	for len(bundle) > 0 {
		if len(bundle) < 2 {
			return leaves, errBundle
		}
		n := 2 + int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < n {
			return leaves, errBundle
		}
		leaves = append(leaves, bundle[2:n])
		bundle = bundle[n:]
	}
	return leaves, nil
}
