package image

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Merge lays trees over each other: where two have the same path, the later one
// wins, a directory's metadata included. A path whose parents lead through a
// symbolic link of an earlier layer lands where the link points (/lib/x in
// /usr/lib/x, once lib is a link to usr/lib), and so does a directory that meets
// a symbolic link to a directory. Any other meeting of a directory with something
// that is none is an error that names both.
//
// A layer need not have the parents of its entries, so that it does not override
// the metadata of directories it has no opinion about; see [Tree.WithParents].
func Merge(layers ...Tree) (Tree, error) {
	count := 0
	for _, layer := range layers {
		count += len(layer.Entries)
	}
	m := merger{entries: make(map[string]placed, count)}
	for i, layer := range layers {
		for _, e := range Sorted(layer.Entries).Entries {
			if err := m.add(e, i); err != nil {
				return Tree{}, err
			}
		}
	}
	return m.tree()
}

// placed is an entry and the number of the layer it came from.
type placed struct {
	Entry
	layer int
}

type merger struct {
	entries map[string]placed
}

func (m *merger) lookup(p string) (Entry, bool) {
	e, ok := m.entries[p]
	return e.Entry, ok
}

func (m *merger) add(e Entry, layer int) error {
	p, err := m.place(e.Path)
	if err != nil {
		return err
	}
	there, ok := m.entries[p]
	if ok && e.Type == Dir && there.Type == Symlink {
		if p, ok, err = follow(m.lookup, p, true); err != nil {
			return err
		}
		there = m.entries[p]
	}
	now := placed{e, layer}
	if ok && (e.Type == Dir) != (there.Type == Dir) {
		return clash(there, now)
	}
	now.Path = p
	m.entries[p] = now
	return nil
}

// place is where an entry lands: as a rule where it says, because its directory is
// there and is one.
func (m *merger) place(p string) (string, error) {
	if i := strings.LastIndexByte(p, '/'); i > 0 && m.entries[p[:i]].Type == Dir {
		return p, nil
	}
	p, _, err := follow(m.lookup, p, false)
	return p, err
}

func (m *merger) tree() (Tree, error) {
	entries := make([]Entry, 0, len(m.entries))
	for _, p := range slices.SortedFunc(maps.Keys(m.entries), ComparePaths) {
		e := m.entries[p]
		parent, ok := m.entries[path.Dir(p)]
		if ok && parent.Type != Dir {
			return Tree{}, clash(parent, e)
		}
		entries = append(entries, e.Entry)
	}
	return Tree{Entries: entries}, nil
}

func clash(a, b placed) error {
	return fault.New(fault.Invalid, "two sources cannot be combined at %q", b.Path).
		Detail(a.describe(), b.describe()).
		Mend("leave one of them out, or give it another destination")
}

func (p placed) describe() string {
	text := fault.New(fault.Invalid, "source %d has the %s %q", p.layer+1, p.Type, p.Path).What
	if p.Type == Symlink {
		text += " -> " + p.Link
	}
	return text
}

// WithParents adds the parent directories that t's entries lack, the root
// included: mode 0755, owner root, modified at mtime.
func (t Tree) WithParents(mtime int64) Tree {
	have := make(map[string]bool, len(t.Entries))
	for _, e := range t.Entries {
		have[e.Path] = true
	}
	entries := slices.Clone(t.Entries)
	add := func(p string) {
		have[p] = true
		entries = append(entries, Entry{Path: p, Type: Dir, Mode: 0o755, MTime: mtime})
	}
	for _, e := range t.Entries {
		for p := path.Dir(e.Path); !have[p]; p = path.Dir(p) {
			add(p)
		}
	}
	if !have["."] {
		add(".")
	}
	return Sorted(entries)
}
