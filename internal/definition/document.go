package definition

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Document is another of Ashlar's documents, read as strictly as a definition: every
// mistake is found in one go, and told with its place and what was meant.
type Document struct {
	f    *faults
	root *node
}

// Value is one value of a Document. The zero Value is one that is not there.
type Value struct{ n *node }

// ReadDocument reads YAML that has to fit a schema of the kind that schema.json is. The
// schema is the program's own: one that cannot be read is a panic. With mistakes the
// root may be missing.
func ReadDocument(name string, src, schema []byte) *Document {
	text, f := readable(name, src)
	d := &Document{f: f}
	if len(f.found) > 0 {
		return d
	}
	rule, err := decodeRule(json.NewDecoder(bytes.NewReader(schema)))
	if err != nil {
		panic(err)
	}
	if d.root = parse(text, f); d.root == nil {
		return d
	}
	if len(d.root.pairs) > 0 {
		d.root.at = d.root.pairs[0].at
	}
	validate(d.root, schemas{rule}, f)
	return d
}

// Root is the map that the document is.
func (d *Document) Root() Value { return Value{d.root} }

// Err gives every mistake, those of Add included; nil when there is none.
func (d *Document) Err() error {
	if list := d.f.list(); list != nil {
		return list
	}
	return nil
}

// Add reports a mistake of a value. Line and column, from 1, count within its text; a
// line of 0 means the value as a whole.
func (d *Document) Add(v Value, line, column int, fix, format string, args ...any) {
	at := span{line: 1, col: 1}
	if v.n != nil {
		at = v.n.at
		if line > 0 {
			at = d.within(v.n, line, column)
		}
	}
	d.f.add(at, nil, fix, format, args...)
}

// within finds the place in the source of a place in a value's text, which may be
// quoted, folded or a block of its own.
func (d *Document) within(n *node, line, column int) span {
	lines := strings.Split(n.raw, "\n")
	if line > len(lines) {
		return n.at
	}
	at := n.at.line
	for i, text := range lines[:line] {
		for from := at; from <= len(d.f.src.lines); from++ {
			before, _, found := strings.Cut(d.f.src.line(from), text)
			if !found || text == "" {
				continue
			}
			if i == line-1 {
				return span{from, utf8.RuneCountInString(before) + max(column, 1), 1}
			}
			at = from + 1
			break
		}
	}
	return n.at
}

// Get gives the value of a map's key.
func (v Value) Get(key string) Value { return Value{v.n.get(key)} }

// Text gives a scalar as it is written, without quotes; empty when it is not there.
func (v Value) Text() string {
	if !usable(v.n) {
		return ""
	}
	return v.n.raw
}

// Texts gives a list of texts.
func (v Value) Texts() []string {
	var out []string
	if v.n != nil {
		for _, item := range v.n.items {
			out = append(out, Value{item}.Text())
		}
	}
	return out
}

// Each calls f for each key of a map, in the order of the file.
func (v Value) Each(f func(key string, val Value)) {
	if v.n == nil {
		return
	}
	for _, p := range v.n.pairs {
		f(p.key, Value{p.val})
	}
}

// Sound says that nothing is wrong with the document so far.
func (d *Document) Sound() bool { return len(d.f.found) == 0 }
