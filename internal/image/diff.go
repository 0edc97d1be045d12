package image

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// ChangeKind is how a path differs between two trees.
type ChangeKind string

// The kinds of a [Change].
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// Change is one path that differs between two trees.
type Change struct {
	Path string     `json:"path"`
	Kind ChangeKind `json:"kind"`
	What []string   `json:"what,omitempty"` // of Changed: each difference in words, e.g. "mode 0644 -> 0755"
	Old  *Entry     `json:"old,omitempty"`  // of Removed and Changed
	New  *Entry     `json:"new,omitempty"`  // of Added and Changed
}

// Diff lists what makes b out of a, by path.
func Diff(a, b Tree) []Change {
	var changes []Change
	i, j := 0, 0
	for i < len(a.Entries) || j < len(b.Entries) {
		switch order := compareHeads(a.Entries[i:], b.Entries[j:]); {
		case order < 0:
			changes = append(changes, Change{Path: a.Entries[i].Path, Kind: Removed, Old: &a.Entries[i]})
			i++
		case order > 0:
			changes = append(changes, Change{Path: b.Entries[j].Path, Kind: Added, New: &b.Entries[j]})
			j++
		default:
			if what := differences(a.Entries[i], b.Entries[j]); len(what) > 0 {
				changes = append(changes, Change{a.Entries[i].Path, Changed, what, &a.Entries[i], &b.Entries[j]})
			}
			i++
			j++
		}
	}
	return changes
}

// DiffLayers is Diff of what two stacks of layers make, of which only the layers that
// differ are given, bottom first: those below are the same in both. It is false if
// what is below would have to be looked at.
func DiffLayers(a, b []Tree) ([]Change, bool) {
	x, y := topmost(a), topmost(b)
	if len(x.Entries) != len(y.Entries) {
		return nil, false
	}
	for i, e := range x.Entries {
		if e.Path != y.Entries[i].Path || e.Type != y.Entries[i].Type {
			return nil, false
		}
	}
	return Diff(x, y), true
}

// topmost gives of each path the entry of the last layer that has it.
func topmost(layers []Tree) Tree {
	at := map[string]int{}
	var entries []Entry
	for _, l := range layers {
		for _, e := range l.Entries {
			if i, ok := at[e.Path]; ok {
				entries[i] = e
				continue
			}
			at[e.Path] = len(entries)
			entries = append(entries, e)
		}
	}
	return Sorted(entries)
}

// compareHeads orders what comes next; nothing left comes after everything.
func compareHeads(a, b []Entry) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	default:
		return ComparePaths(a[0].Path, b[0].Path)
	}
}

func differences(a, b Entry) []string {
	var what []string
	note := func(differs bool, format string, args ...any) {
		if differs {
			what = append(what, fmt.Sprintf(format, args...))
		}
	}
	note(a.Type != b.Type, "type %s -> %s", a.Type, b.Type)
	note(a.Mode != b.Mode, "mode %04o -> %04o", a.Mode, b.Mode)
	note(a.UID != b.UID || a.GID != b.GID, "owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID)
	note(a.Digest != b.Digest, "content")
	note(a.Size != b.Size, "size %d -> %d", a.Size, b.Size)
	note(a.Link != b.Link, "target %s -> %s", a.Link, b.Link)
	note(a.MTime != b.MTime, "modified %s -> %s", stamp(a.MTime), stamp(b.MTime))
	for _, name := range slices.Sorted(maps.Keys(a.Xattrs)) {
		after, ok := b.Xattrs[name]
		note(!ok, "attribute %s removed", name)
		note(ok && after != a.Xattrs[name], "attribute %s changed", name)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Xattrs)) {
		_, ok := a.Xattrs[name]
		note(!ok, "attribute %s added", name)
	}
	return what
}

func stamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }
