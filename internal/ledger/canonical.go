package ledger

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Limits of what is read. A Debian closure of 1,000 packages has some 100,000 entries.
const (
	MaxLedger  = 1 << 20   // bytes of a ledger
	MaxChapter = 256 << 20 // bytes of a chapter
	maxLayers  = 512
	maxLines   = 2_000_000 // of a chapter
	maxOrigins = 100_000   // of a chapter
	maxText    = 4095      // bytes of a path or a member
)

// Canonical gives the ledger's bytes. A ledger that is not valid has none.
func (l Ledger) Canonical() ([]byte, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	return canonicalJSON(l)
}

// Parse reads what Canonical wrote, and refuses every other bytes.
func Parse(b []byte) (Ledger, error) {
	var l Ledger
	if err := strict("ledger", b, MaxLedger, &l); err != nil {
		return Ledger{}, err
	}
	return l, same("ledger", b, l)
}

// Canonical gives the chapter's bytes. A chapter that is not valid has none.
//
// Lines are written by hand: a chapter may have thousands, and the keys of a line are
// in order here.
func (c Chapter) Canonical() ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	rest, err := canonicalJSON(struct {
		Origins []Origin `json:"origins"`
		Schema  string   `json:"schema"`
		Source  string   `json:"source"`
	}{c.Origins, c.Schema, c.Source})
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 96*len(c.Lines)+len(rest)+16)
	b = append(b, `{"lines":[`...)
	for i, l := range c.Lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = l.append(b)
	}
	b = append(b, "],"...)
	return append(b, rest[1:]...), nil
}

// ParseChapter reads what Canonical wrote, and refuses every other bytes.
func ParseChapter(b []byte) (Chapter, error) {
	var c Chapter
	if err := strict("chapter", b, MaxChapter, &c); err != nil {
		return Chapter{}, err
	}
	return c, same("chapter", b, c)
}

// line is how a Line is read.
type line struct {
	Amended []int  `json:"amended,omitempty"`
	Member  string `json:"member,omitempty"`
	Origin  int    `json:"origin"`
	Path    string `json:"path"`
}

// UnmarshalJSON reads a line strictly.
func (l *Line) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var in line
	if err := dec.Decode(&in); err != nil {
		return err
	}
	*l = Line{Path: in.Path, Origin: in.Origin, Member: in.Member, Amended: in.Amended}
	return nil
}

// MarshalJSON writes a line as it stands in a chapter.
func (l Line) MarshalJSON() ([]byte, error) { return l.append(nil), nil }

func (l Line) append(b []byte) []byte {
	b = append(b, '{')
	if len(l.Amended) > 0 {
		b = append(b, `"amended":[`...)
		for i, n := range l.Amended {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, "],"...)
	}
	if l.Member != "" {
		b = appendText(append(b, `"member":`...), l.Member)
		b = append(b, ',')
	}
	b = strconv.AppendInt(append(b, `"origin":`...), int64(l.Origin), 10)
	b = appendText(append(b, `,"path":`...), l.Path)
	return append(b, '}')
}

// appendText writes a string as RFC 8785, section 3.2.2.2, has it. It is UTF-8.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0 // what is before it is written
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch {
		case c >= 0x20:
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

func canonicalJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(b)
}

// strict decodes a document of known keys.
func strict(what string, b []byte, limit int, v any) error {
	if len(b) > limit {
		return refused("the %s has %d bytes, more than %d", what, len(b), limit)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return refused("the %s cannot be read: %w", what, err)
	}
	return nil
}

// same refuses bytes that are not the one form of what was read from them: another
// order, white space, something after the end, or a value that is not valid.
func same(what string, b []byte, v interface{ Canonical() ([]byte, error) }) error {
	again, err := v.Canonical()
	if err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return refused("the %s is not in its canonical form", what)
	}
	return nil
}

func (l Ledger) validate() error {
	switch {
	case l.Schema != Schema:
		return refused("the ledger has the schema %q; this program knows %s", l.Schema, Schema)
	case l.Arch == "" || l.Component == "":
		return refused("the ledger names no architecture or no component")
	case !isDigest(l.Artifact) || !isDigest(l.Seal):
		return refused("the ledger names no artifact or no seal")
	case len(l.Layers) == 0 || len(l.Layers) > maxLayers:
		return refused("the ledger has %d layers", len(l.Layers))
	}
	for i, y := range l.Layers {
		if !isDigest(y.Tree) || !isDigest(y.Chapter) {
			return refused("layer %d of the ledger has no tree or no chapter", i+1)
		}
	}
	return nil
}

func (c Chapter) validate() error {
	switch {
	case c.Schema != ChapterSchema:
		return refused("the chapter has the schema %q; this program knows %s", c.Schema, ChapterSchema)
	case len(c.Lines) > maxLines || len(c.Origins) > maxOrigins || c.Lines == nil || c.Origins == nil:
		return refused("the chapter has %d lines and %d origins", len(c.Lines), len(c.Origins))
	case !utf8.ValidString(c.Source):
		return refused("the chapter's source is not UTF-8")
	}
	for i, o := range c.Origins {
		if err := o.validate(); err != nil {
			return refused("origin %d of the chapter: %w", i, err)
		}
	}
	for i, l := range c.Lines {
		if err := c.line(l); err != nil {
			return err
		}
		if i > 0 && image.ComparePaths(c.Lines[i-1].Path, l.Path) >= 0 {
			return refused("the chapter's lines are out of order, or one stands twice: %q", l.Path)
		}
	}
	return nil
}

// line says what is wrong with a line.
func (c Chapter) line(l Line) error {
	switch {
	case l.Path == "" || len(l.Path) > maxText || !utf8.ValidString(l.Path):
		return refused("the chapter has a line for the impossible path %.60q", l.Path)
	case l.Origin < 0 || l.Origin >= len(c.Origins):
		return refused("%q is said to come from origin %d, which the chapter does not have", l.Path, l.Origin)
	case c.Origins[l.Origin].Kind == KindArchive:
		return refused("%q is said to come from an index, which has no files", l.Path)
	case len(l.Member) > maxText || !utf8.ValidString(l.Member) || l.Member == l.Path:
		return refused("%q has the impossible member %.60q", l.Path, l.Member)
	case c.Origins[l.Origin].Kind == KindRule && l.Member != "":
		return refused("%q is said to come from a rule and from the member %q too", l.Path, l.Member)
	}
	for i, n := range l.Amended {
		if n < 0 || n >= len(c.Origins) || c.Origins[n].Kind != KindRule || i > 0 && l.Amended[i-1] >= n {
			return refused("%q is said to be amended by %v, which are not rules in order", l.Path, l.Amended)
		}
	}
	return nil
}

func (o Origin) validate() error {
	switch o.Kind {
	case KindDebian, KindArchive, KindImage:
		if !isDigest(o.Digest) {
			return refused("the %s %s has no digest", o.Kind, o.Name)
		}
	case KindGo:
		if o.Go == nil {
			return refused("the program %s does not say what it was made of", o.Name)
		}
	case KindRule:
		if o.Text == "" || o.Digest != "" {
			return refused("the rule %s does not say what it does, or names a digest", o.Name)
		}
	case KindFile:
	default:
		return refused("the kind %q is not known", o.Kind)
	}
	if o.Name == "" || o.Size < 0 || o.Digest != "" && !isDigest(o.Digest) {
		return refused("the %s %q has no name, or an impossible size or digest", o.Kind, o.Name)
	}
	if o.Go != nil {
		for _, f := range o.Go.Files {
			if f.Path == "" || !isDigest(f.Digest) {
				return refused("the source file %q of %s has no digest", f.Path, o.Name)
			}
		}
	}
	return nil
}

func isDigest(d digest.Digest) bool {
	_, ok := image.Hex(d)
	return ok
}

func refused(format string, args ...any) error { return fault.New(fault.Refused, format, args...) }
