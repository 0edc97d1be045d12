package definition

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// Limits of a definition. They keep hostile input from costing memory or time;
// a real one stays far below them.
const (
	maxBytes  = 1 << 20
	maxTokens = 50_000
	maxDepth  = 64
	maxIndent = 512 // columns
)

// readable checks that the bytes are text at all and gives them with line ends
// normalised. It reports the first byte that is not.
func readable(name string, raw []byte) (string, *faults) {
	text := strings.TrimPrefix(string(raw), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	f := &faults{src: newSource(name, text)}
	if len(raw) > maxBytes {
		f.src.lines = nil
		f.add(span{line: 1, col: 1}, nil, "is this the right file? A definition is written by hand",
			"the definition is %d bytes long; at most 1 MiB (%d bytes) is read", len(raw), maxBytes)
		return "", f
	}
	for i, line := range f.src.lines {
		col := 0
		for at, r := range line {
			col++
			place := span{i + 1, col, 1}
			if _, size := utf8.DecodeRuneInString(line[at:]); r == utf8.RuneError && size == 1 {
				f.add(place, nil, "save the file as UTF-8", "byte 0x%02x is not UTF-8 text", line[at])
				return "", f
			}
			if (unicode.IsControl(r) || turns(r)) && r != '\t' {
				f.add(place, nil, "remove it, or write it as an escape within double quotes", "control character U+%04X is not allowed", r)
				return "", f
			}
		}
	}
	return text, f
}

// bounded refuses input whose nesting or length would cost too much to read.
func bounded(tokens token.Tokens, f *faults) bool {
	flow, run, line := 0, 0, 0
	for i, t := range tokens {
		at := span{t.Position.Line, t.Position.Column, 1}
		first := t.Position.Line != line
		line = t.Position.Line
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
			run++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			if first {
				run = 0
			}
			run++
		default:
			if i == 0 || tokens[i-1].Type != token.AnchorType { // that is the anchor's name
				run = 0
			}
		}
		switch {
		case t.Type == token.InvalidType: // the parser says what is wrong with it
		case flow > maxDepth, run > maxDepth, first && flow == 0 && t.Position.Column > maxIndent:
			f.add(at, nil, "a definition needs about ten levels", "the nesting is too deep here")
			return false
		case i > maxTokens:
			f.add(at, nil, "is this the right file?", "the definition is too long: it has more than %d words and signs up to here", maxTokens)
			return false
		}
	}
	return true
}
