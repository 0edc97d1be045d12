package build

import (
	"fmt"
	"io"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/minimal"
)

// minimise leaves out of a tree what its programs do not need. What remains keeps its
// explanation.
func (c *component) minimise(full debian.Made, src *definition.DebianSource, text string) (made, error) {
	step := c.step(StepMinimise)
	raw, err := c.Objects.ReadAll(full.Chapter, ledger.MaxChapter)
	if err != nil {
		return made{}, err
	}
	ch, err := ledger.ParseChapter(raw)
	if err != nil {
		return made{}, err
	}
	if err := ch.Explains(full.Tree); err != nil {
		return made{}, err
	}
	stays, err := minimal.Select(full.Tree, minimal.Want{Owner: owner(ch), Packages: src.Packages, Keep: src.Minimise.Keep}, c.facts())
	if err != nil {
		return made{}, err
	}
	w := ledger.NewWriter(ch.Source)
	for _, o := range ch.Origins { // in their order, so that lines keep their indexes
		w.Origin(o)
	}
	w.Origin(minimised(src))
	entries := make([]image.Entry, 0, len(stays))
	for _, i := range stays {
		entries = append(entries, full.Tree.Entries[i])
		w.Line(ch.Lines[i])
	}
	m := made{entries: entries, comment: text + " minimised"}
	if raw, err = w.Chapter().Canonical(); err != nil {
		return made{}, err
	}
	if m.chapter, err = c.Objects.PutBytes(raw); err != nil {
		return made{}, err
	}
	step.done(Event{Text: fmt.Sprintf("%d of %d entries remain", len(stays), len(full.Tree.Entries)), Count: len(stays), Total: len(full.Tree.Entries)})
	return m, nil
}

// minimised says by which rule entries are missing, with what it was asked for.
func minimised(src *definition.DebianSource) ledger.Origin {
	text := "of the packages' files remain: those of " + strings.Join(src.Packages, ", ") + "; what their programs and libraries are linked with; " +
		"what rules made; os-release, UTC, C.UTF-8 and the copyright files of what remains"
	if len(src.Minimise.Keep) > 0 {
		text += "; and /" + strings.Join(src.Minimise.Keep, ", /")
	}
	return ledger.Origin{Kind: ledger.KindRule, Name: ledger.RuleMinimise, Text: text}
}

// owner gives the package of an entry, empty where a rule made it.
func owner(ch ledger.Chapter) func(i int) string {
	return func(i int) string {
		if o := ch.Origins[ch.Lines[i].Origin]; o.Kind == ledger.KindDebian {
			return o.Name
		}
		return ""
	}
}

// facts reads executables of the store, each once.
func (c *component) facts() minimal.Facts {
	type answer struct {
		elf *minimal.ELF
		err error
	}
	known := map[string]answer{}
	return func(e image.Entry) (*minimal.ELF, error) {
		if e.Type != image.File || e.Size == 0 {
			return nil, nil
		}
		a, ok := known[e.Digest.String()]
		if !ok {
			a.elf, a.err = c.readELF(e)
			known[e.Digest.String()] = a
		}
		return a.elf, a.err
	}
}

func (c *component) readELF(e image.Entry) (*minimal.ELF, error) {
	f, err := c.Objects.Open(e.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, fault.New(fault.Internal, "an object cannot be read at a place")
	}
	return minimal.Read(io.NewSectionReader(r, 0, e.Size))
}
