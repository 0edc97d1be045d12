package build

import (
	"debug/buildinfo"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// explainer says where the entries of a source come from: it adds the origins to the
// chapter, and gives a function from the index of an entry to its line, whose path
// need not be set. It is asked once for each entry.
type explainer func(w *ledger.Writer) func(i int) (ledger.Line, error)

// allFrom explains every entry of a source by the same origin.
func allFrom(o ledger.Origin) explainer {
	return func(w *ledger.Writer) func(int) (ledger.Line, error) {
		line := ledger.Line{Origin: w.Origin(o)}
		return func(int) (ledger.Line, error) { return line, nil }
	}
}

// chapter explains a layer, t, that was made from what a source gave, and adds the
// chapter to the batch. It fails when an entry is unexplained.
func (c *component) chapter(s made, lower, t image.Tree, from []int) (digest.Digest, error) {
	if s.chapter != "" && from == nil {
		return s.chapter, nil // checked when it was made
	}
	if s.chapter != "" {
		var err error
		if s.explain, err = c.known(s); err != nil {
			return "", err
		}
	}
	ch, err := explained(s, lower, t, from)
	if err != nil {
		return "", err
	}
	text, err := ch.Canonical()
	if err != nil {
		return "", err
	}
	return c.batch.PutBytes(text)
}

// explained makes the chapter of a layer.
func explained(s made, lower, t image.Tree, from []int) (ledger.Chapter, error) {
	w := ledger.NewWriter(s.comment)
	if s.explain == nil {
		return ledger.Chapter{}, fault.New(fault.Invalid, "/%s is unexplained: its source does not say where it is from", t.Entries[0].Path)
	}
	line := s.explain(w)
	w.Grow(len(t.Entries))
	for i, e := range t.Entries {
		n := i
		if from != nil {
			n = from[i]
		}
		l := ledger.Line{}
		if n == added {
			l.Origin = w.Origin(parent(lower, e))
		} else {
			var err error
			if l, err = line(n); err != nil {
				return ledger.Chapter{}, err
			}
		}
		l.Path = e.Path
		w.Line(l)
	}
	ch := w.Chapter()
	return ch, ch.Explains(t)
}

// parent is why there is a directory that the source did not ask for.
func parent(lower image.Tree, e image.Entry) ledger.Origin {
	if len(lower.Entries) > 0 {
		if _, ok := lower.Lookup(e.Path); ok {
			return ledger.Below
		}
	}
	return ledger.Parents
}

// known explains entries by the chapter that was made with them. Members keep their
// names where the entries are moved.
func (c *component) known(s made) (explainer, error) {
	raw, err := c.Objects.ReadAll(s.chapter, ledger.MaxChapter)
	if err != nil {
		return nil, err
	}
	ch, err := ledger.ParseChapter(raw)
	if err != nil {
		return nil, err
	}
	if err := ch.Explains(image.Tree{Entries: s.entries}); err != nil {
		return nil, err
	}
	return func(w *ledger.Writer) func(int) (ledger.Line, error) {
		index := make([]int, len(ch.Origins))
		for i, o := range ch.Origins {
			index[i] = w.Origin(o)
		}
		return func(i int) (ledger.Line, error) {
			l := ch.Lines[i]
			if l.Member == "" && ch.Origins[l.Origin].Kind != ledger.KindRule {
				l.Member = l.Path
			}
			l.Origin = index[l.Origin]
			l.Amended = slices.Clone(l.Amended)
			for k, n := range l.Amended {
				l.Amended[k] = index[n]
			}
			slices.Sort(l.Amended)
			return l, nil
		}
	}, nil
}

// ledger adds the ledger of an artifact, whose names are known by now, to the batch.
func (c *component) ledger(art *Artifact, chapters []digest.Digest) error {
	l := ledger.Ledger{Schema: ledger.Schema, Component: c.Name, Arch: c.arch(), Artifact: art.Manifest, Seal: art.Seal}
	for i, y := range art.Layers {
		l.Layers = append(l.Layers, ledger.Layer{Tree: y.Tree, Chapter: chapters[i]})
	}
	text, err := l.Canonical()
	if err != nil {
		return err
	}
	if art.Ledger, err = c.batch.PutBytes(text); err != nil {
		return err
	}
	if d, ok := recall(c.Objects, refLedger, art.Manifest.Encoded()); ok && d == art.Ledger {
		return nil
	}
	return c.batch.SetRef(refLedger, art.Manifest.Encoded(), art.Ledger)
}

// origin is what a program was compiled from, as the linker recorded it in the
// executable, and the files that were read.
func (p *goProgram) origin(file string) (ledger.Origin, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return ledger.Origin{}, fmt.Errorf("reading what %s was built from: %w", p.src.Package, err)
	}
	o := ledger.Origin{
		Kind: ledger.KindGo, Name: info.Path, Version: p.tool.version, Arch: p.c.arch(),
		Go: &ledger.Program{Module: info.Main.Path, Flags: p.flags(), Files: p.files},
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version == "" {
			continue // a directory, whose files are among the files
		}
		o.Go.Modules = append(o.Go.Modules, ledger.Module{Path: m.Path, Version: m.Version, Sum: m.Sum})
	}
	return o, nil
}
