package image

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// Sorted makes a tree of entries in the order that [Tree] asks for. It checks nothing.
func Sorted(entries []Entry) Tree {
	entries = slices.Clone(entries)
	byPath := func(a, b Entry) int { return ComparePaths(a.Path, b.Path) }
	if !slices.IsSortedFunc(entries, byPath) { // as a rule it is
		slices.SortStableFunc(entries, byPath)
	}
	return Tree{Entries: entries}
}

// ComparePaths is the order of a [Tree]: bytewise, the root before everything.
func ComparePaths(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == ".":
		return -1
	case b == ".":
		return 1
	default:
		return strings.Compare(a, b)
	}
}

// CleanPath gives a path the form that [Entry] has: "/usr//bin/" is "usr/bin",
// "/" is ".", and ".." ends at the root.
func CleanPath(p string) string {
	p = path.Clean("/" + p)[1:]
	if p == "" {
		return "."
	}
	return p
}

// Lookup finds the entry at a path, absolute or relative to the root, without
// following symbolic links.
func (t Tree) Lookup(p string) (Entry, bool) {
	return t.lookup(CleanPath(p))
}

// lookup is Lookup of a path that is clean.
func (t Tree) lookup(p string) (Entry, bool) {
	i, found := slices.BinarySearchFunc(t.Entries, p, func(e Entry, p string) int { return ComparePaths(e.Path, p) })
	if !found {
		return Entry{}, false
	}
	return t.Entries[i], true
}

// Resolve gives the path of what p leads to when symbolic links are followed the
// way a process whose root is t follows them: an absolute target starts at t's
// root, and ".." does not leave it. The error for a path that leads nowhere
// satisfies errors.Is(err, fs.ErrNotExist).
func (t Tree) Resolve(p string) (string, error) {
	resolved, found, err := t.Follow(p)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "%q leads to %q, which is not in the tree: %w", p, resolved, fs.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	return resolved, nil
}

// Follow is Resolve that also says where a path leads that does not exist: from
// the first missing component on, it is kept as written.
func (t Tree) Follow(p string) (resolved string, found bool, err error) {
	return follow(t.lookup, p, true)
}

// Place gives the path at which something written to p would land: symbolic
// links on the way are followed, the last component is taken as it is, and what
// does not exist is kept as written.
func (t Tree) Place(p string) (string, error) {
	resolved, _, err := follow(t.lookup, p, false)
	return resolved, err
}

// follow walks p, following symbolic links, the last component's only if last is
// set. What lookup does not find is kept as written; found is about the result.
func follow(lookup func(string) (Entry, bool), p string, last bool) (resolved string, found bool, err error) {
	at, found := ".", true
	rest := strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at) // of "." it is "."
			_, found = lookup(at)
			continue
		}
		next := name
		if at != "." {
			next = at + "/" + name
		}
		e, ok := lookup(next)
		more := len(rest) > 1 || len(rest) == 1 && rest[0] != ""
		switch {
		case ok && e.Type == Symlink && (more || last):
			if links++; links > maxLinks {
				return "", false, fault.New(fault.Invalid, "%q leads through more than %d symbolic links", p, maxLinks)
			}
			if strings.HasPrefix(e.Link, "/") {
				at = "."
			}
			rest = append(strings.Split(e.Link, "/"), rest...)
			continue
		case ok && e.Type == File && more:
			return "", false, fault.New(fault.Invalid, "%q leads through %q, which is a file", p, next)
		}
		at, found = next, ok
	}
	return at, found, nil
}
