package ledger

import (
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Objects reads objects. It checks their digests; the error for one that is not there
// satisfies errors.Is(err, fs.ErrNotExist).
type Objects interface {
	ReadAll(d digest.Digest, limit int64) ([]byte, error)
}

// Book is a ledger with its chapters: every entry of the artifact's root, explained.
type Book struct {
	Ledger   Ledger
	Digest   digest.Digest // of the ledger
	Chapters []Chapter     // of the layers
	Trees    []image.Tree  // of the layers
	Entries  []Entry       // of the root, in the order of image.Tree
}

// Entry is one entry of the root with where it comes from.
type Entry struct {
	image.Entry
	Layer int // index in Book.Chapters
	Line  Line
}

// Read reads a ledger and all that it names.
func Read(objects Objects, d digest.Digest) (*Book, error) {
	raw, err := objects.ReadAll(d, MaxLedger)
	if err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	l, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	b := &Book{Ledger: l, Digest: d}
	root := map[string]Entry{}
	for i, y := range l.Layers {
		t, c, err := y.read(objects)
		if err != nil {
			return nil, fmt.Errorf("layer %d of the ledger: %w", i+1, err)
		}
		if err := c.Explains(t); err != nil {
			return nil, fault.Of(err).At(fmt.Sprintf("layer %d", i+1))
		}
		b.Chapters, b.Trees = append(b.Chapters, c), append(b.Trees, t)
		if err := b.lay(root, t, i); err != nil {
			return nil, err
		}
	}
	b.Entries = make([]Entry, 0, len(root))
	for _, p := range slices.SortedFunc(maps.Keys(root), image.ComparePaths) {
		b.Entries = append(b.Entries, root[p])
	}
	return b, nil
}

func (y Layer) read(objects Objects) (t image.Tree, c Chapter, err error) {
	raw, err := objects.ReadAll(y.Tree, image.TreeLimit)
	if err != nil {
		return t, c, err
	}
	if t, err = image.UnmarshalTree(raw); err != nil {
		return t, c, err
	}
	if raw, err = objects.ReadAll(y.Chapter, MaxChapter); err != nil {
		return t, c, err
	}
	c, err = ParseChapter(raw)
	return t, c, err
}

// lay puts the entries of a layer over those below. Its paths need no following of
// links: a build has placed them.
func (b *Book) lay(root map[string]Entry, t image.Tree, layer int) error {
	c := b.Chapters[layer]
	for i, e := range t.Entries {
		line := c.Lines[i]
		o := c.Origins[line.Origin]
		if o.Kind != KindRule || o.Name != Below.Name {
			root[e.Path] = Entry{e, layer, line}
			continue
		}
		have, ok := root[e.Path]
		if !ok || len(image.Diff(image.Tree{Entries: []image.Entry{have.Entry}}, image.Tree{Entries: []image.Entry{e}})) > 0 {
			return refused("layer %d says that it repeats the directory /%s, which is not so below it", layer+1, e.Path)
		}
	}
	return nil
}

// Explains fails, naming up to ten entries, unless the chapter has exactly one line
// for each entry of the tree.
func (c Chapter) Explains(t image.Tree) error {
	i, j := 0, 0
	var details []string
	count := 0
	note := func(format string, p string) {
		if count++; count <= 10 {
			details = append(details, fmt.Sprintf(format, p))
		}
	}
	for i < len(c.Lines) || j < len(t.Entries) {
		switch {
		case j == len(t.Entries) || i < len(c.Lines) && image.ComparePaths(c.Lines[i].Path, t.Entries[j].Path) < 0:
			note("missing: /%s is explained and not there", c.Lines[i].Path)
			i++
		case i == len(c.Lines) || image.ComparePaths(c.Lines[i].Path, t.Entries[j].Path) > 0:
			note("unexplained: /%s", t.Entries[j].Path)
			j++
		default:
			i++
			j++
		}
	}
	if count == 0 {
		return nil
	}
	return fault.New(fault.Refused, "the ledger does not explain the tree: %d of %d entries", count, len(t.Entries)).Detail(details...)
}

// Origin is where an entry of the book comes from.
func (b *Book) Origin(e Entry) Origin { return b.Chapters[e.Layer].Origins[e.Line.Origin] }

// Amended are the rules that changed an entry.
func (b *Book) Amended(e Entry) []Origin {
	var out []Origin
	for _, n := range e.Line.Amended {
		out = append(out, b.Chapters[e.Layer].Origins[n])
	}
	return out
}

// Member is the name of an entry within its input; empty for what a rule or a compiler
// made.
func (b *Book) Member(e Entry) string {
	switch {
	case b.Origin(e).Kind == KindRule || b.Origin(e).Kind == KindGo:
		return ""
	case e.Line.Member != "":
		return e.Line.Member
	default:
		return e.Path
	}
}

// Lookup finds an entry by its path, absolute or relative to the root.
func (b *Book) Lookup(p string) (Entry, bool) {
	p = image.CleanPath(p)
	i, ok := slices.BinarySearchFunc(b.Entries, p, func(e Entry, p string) int { return image.ComparePaths(e.Path, p) })
	if !ok {
		return Entry{}, false
	}
	return b.Entries[i], true
}

// Tree is the root that the book explains.
func (b *Book) Tree() image.Tree {
	entries := make([]image.Entry, len(b.Entries))
	for i, e := range b.Entries {
		entries[i] = e.Entry
	}
	return image.Tree{Entries: entries}
}

// Inputs are the origins that are no rules, each once, bottom layer first.
func (b *Book) Inputs() []Origin { return b.origins(func(o Origin) bool { return o.Kind != KindRule }) }

// Rules are the rules that made or amended something, each once, by name.
func (b *Book) Rules() []Origin {
	out := b.origins(func(o Origin) bool { return o.Kind == KindRule })
	slices.SortFunc(out, func(x, y Origin) int { return image.ComparePaths(x.Name, y.Name) })
	return out
}

func (b *Book) origins(want func(Origin) bool) []Origin {
	var out []Origin
	seen := map[key]bool{}
	for _, c := range b.Chapters {
		for _, o := range c.Origins {
			k := key{o.Kind, o.Name, o.Version, o.Digest}
			if want(o) && !seen[k] {
				seen[k] = true
				out = append(out, o)
			}
		}
	}
	return out
}
