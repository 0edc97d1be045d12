package definition

import (
	"errors"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
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

// parse reads YAML into nodes. It gives nil when the text cannot be understood as
// one map; what is wrong is in f.
func parse(text string, f *faults) *node {
	tokens := lexer.Tokenize(text)
	if !bounded(tokens, f) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		f.syntax(err)
		return nil
	}
	r := &reader{f: f}
	var root *node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType:
		case doc.Body.Type() == ast.DirectiveType:
			f.add(r.place(doc.Body.GetToken()), nil, "remove the line", "YAML directives are not used here")
		case root != nil:
			f.add(r.begin(doc.Body), nil, "keep one document: remove the line --- and what follows it", "a second YAML document begins here")
			return nil
		default:
			root = r.read(doc.Body, nodeLabel{}, span{1, 1, 1}, 0)
		}
	}
	if root == nil && len(f.found) == 0 || root != nil && root.kind == kindNull {
		f.add(span{line: 1, col: 1}, nil, "ashlar init  writes one to start from", "the definition is empty")
		return nil
	}
	return root
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
			run = 0
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

// reader turns the YAML library's tree into nodes.
type reader struct{ f *faults }

// read turns one YAML value into a node. key is the place of its key, which
// stands for a value that has no text of its own.
func (r *reader) read(n ast.Node, label nodeLabel, key span, depth int) *node {
	out := &node{label: label, at: key}
	if depth > maxDepth {
		r.f.add(key, nil, "a definition needs about ten levels", "the nesting is too deep here")
		return out
	}
	switch v := n.(type) {
	case *ast.MappingNode:
		r.readMap(out, v, depth)
	case *ast.MappingValueNode:
		r.readMap(out, &ast.MappingNode{BaseNode: &ast.BaseNode{}, Start: v.Start, Values: []*ast.MappingValueNode{v}}, depth)
	case *ast.SequenceNode:
		out.kind = kindList
		if v.IsFlowStyle {
			out.at = r.place(v.Start)
		}
		for i, item := range v.Values {
			child := nodeLabel{key: label.key, item: i + 1}
			at := out.at
			if item != nil {
				at = r.begin(item)
			}
			out.items = append(out.items, r.read(item, child, at, depth+1))
		}
	case *ast.AnchorNode:
		r.refuse(v.Start, "anchors are not used here", "write the value out where it is needed; what environments share goes into the component")
		return r.read(v.Value, label, key, depth+1)
	case *ast.AliasNode:
		r.refuse(v.Start, "aliases are not used here", "write the value out; what environments share goes into the component")
		out.broken = true
	case *ast.TagNode:
		r.refuse(v.Start, "YAML tags are not used here", "remove the tag; text that looks like something else is written in quotes")
		return r.read(v.Value, label, key, depth+1)
	default:
		r.readScalar(out, n)
	}
	return out
}

// begin gives where a value begins: a map in block style has its first key there.
func (r *reader) begin(n ast.Node) span {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return r.place(m.Values[0].Key.GetToken())
	}
	return r.place(n.GetToken())
}

func (r *reader) readMap(out *node, m *ast.MappingNode, depth int) {
	out.kind = kindMap
	if m.IsFlowStyle {
		out.at = r.place(m.Start)
	}
	first := map[string]span{}
	for _, value := range m.Values {
		at := r.place(value.Key.GetToken())
		key, ok := r.key(value.Key, at)
		if !ok {
			out.holes = true
			continue
		}
		if before, twice := first[key]; twice {
			r.f.add(at, nil, "keep one of them", "key %q is given twice; the first is in line %d", short(key), before.line)
			continue
		}
		first[key] = at
		val := r.read(value.Value, nodeLabel{key: key}, at, depth+1)
		out.pairs = append(out.pairs, pair{key, at, val})
	}
}

// key gives the text of a map key; false when it cannot be used as one.
func (r *reader) key(n ast.MapKeyNode, at span) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.MergeKeyNode:
		r.f.add(at, nil, "write the keys out; what environments share goes into the component", "merge keys (<<) are not used here")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	default:
		r.f.add(at, nil, "write the key as plain text", "this cannot be a key")
	}
	return "", false
}

var plainDecimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func (r *reader) readScalar(out *node, n ast.Node) {
	if n == nil || n.GetToken() == nil {
		return
	}
	t := n.GetToken()
	at, written := r.locate(t)
	if written {
		out.at = at
	}
	out.raw = t.Value
	switch v := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.kind, out.value = kindBool, v.Value
	case *ast.IntegerNode:
		out.kind, out.value, out.odd = kindInt, v.Value, !plainDecimal.MatchString(t.Value)
	case *ast.FloatNode:
		out.kind, out.value = kindNumber, v.Value
		if math.IsInf(v.Value, 0) || math.IsNaN(v.Value) {
			out.kind, out.value = kindText, t.Value
		}
	case *ast.StringNode:
		out.kind, out.value, out.raw = kindText, v.Value, v.Value
	case *ast.LiteralNode:
		out.kind, out.value, out.raw = kindText, v.Value.Value, v.Value.Value
	default:
		out.kind, out.value = kindText, t.Value
	}
}

func (r *reader) refuse(t *token.Token, what, fix string) {
	r.f.add(r.place(t), []string{"want:  the plain value: there is no templating"}, fix, "%s", what)
}

// place gives where a token stands.
func (r *reader) place(t *token.Token) span {
	at, _ := r.locate(t)
	return at
}

// locate gives where a token stands and whether it is really there: the library
// makes tokens for missing values, and misplaces text that spans lines.
func (r *reader) locate(t *token.Token) (span, bool) {
	if t == nil || t.Position == nil {
		return span{1, 1, 1}, false
	}
	text, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
	text = strings.TrimSpace(text)
	at := span{t.Position.Line, t.Position.Column, max(utf8.RuneCountInString(text), 1)}
	if r.stands(text, at) {
		return at, true
	}
	if t.Type == token.NullType || t.Type == token.ImplicitNullType || text == "" {
		return at, false
	}
	for line := at.line; line > max(at.line-200, 0); line-- {
		if i := strings.Index(r.f.src.line(line), text); i >= 0 {
			return span{line, utf8.RuneCountInString(r.f.src.line(line)[:i]) + 1, at.width}, true
		}
	}
	return at, false
}

// stands says that the source has the text at the place.
func (r *reader) stands(text string, at span) bool {
	line := []rune(r.f.src.line(at.line))
	if at.col < 1 || at.col > len(line) {
		return false
	}
	return strings.HasPrefix(string(line[at.col-1:]), text)
}

// syntax reports that the text is not YAML.
func (f *faults) syntax(err error) {
	at, message := span{1, 1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		message = y.GetMessage()
		if t := y.GetToken(); t != nil {
			at = (&reader{f}).place(t)
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	for n := at.line; n <= at.line+1; n++ {
		line := f.src.line(n)
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if i := strings.IndexByte(indent, '\t'); i >= 0 {
			f.add(span{n, i + 1, 1}, nil, "indent with spaces", "a tab is used for indentation")
			return
		}
	}
	if strings.Contains(message, "mapping value is not allowed in this context") {
		f.secondColon(at)
		return
	}
	for _, known := range syntaxMessages {
		if strings.Contains(message, known.part) {
			f.add(at, nil, known.fix, "%s", known.what)
			return
		}
	}
	f.add(at, nil, "check the indentation and the quotes around this place", "this is not valid YAML: %s", message)
}

// secondColon reports a value that seems to be a key: it has a colon itself, or the
// line below it is indented further.
func (f *faults) secondColon(at span) {
	line := []rune(f.src.line(at.line))
	rest := strings.TrimSpace(string(line[min(max(at.col-1, 0), len(line)):]))
	if strings.Contains(rest, ": ") || strings.HasSuffix(rest, ":") {
		at.width = utf8.RuneCountInString(rest)
		f.add(at, nil, "put the text in quotes, or the key on a line of its own", "there is a second colon in this value")
		return
	}
	for n := at.line + 1; n <= len(f.src.lines); n++ {
		if text := strings.TrimSpace(f.src.line(n)); text != "" && text[0] != '#' {
			indent := len(f.src.line(n)) - len(strings.TrimLeft(f.src.line(n), " "))
			f.add(span{n, indent + 1, utf8.RuneCountInString(text)}, nil, "line it up with the key it belongs beside", "this line is indented further than the line above, which has a value already")
			return
		}
	}
	f.add(at, nil, "put the text in quotes", "this value is taken for a key")
}

// syntaxMessages says in our words what the YAML library finds.
var syntaxMessages = []struct{ part, what, fix string }{
	{"double-quoted text", "text in double quotes does not end", `close it with "`},
	{"single-quoted text", "text in single quotes does not end", "close it with '"},
	{"sequence end token ']' not found", "the list that begins here does not end", "close it with ]"},
	{"flow mapping end token '}'", "the map that begins here does not end", "close it with }"},
	{"',' or '}' must be specified", "the map in braces before this does not end", "close it with }, or put a comma between its keys"},
	{"',' or ']' must be specified", "the list in brackets before this does not end", "close it with ], or put a comma between its items"},
	{"is a reserved character", "text cannot begin with this character", "put the text in quotes"},
	{"unexpected directive value", "text cannot begin with %", "put the text in quotes"},
	{"unexpected key name", "this key is joined to the line before it", "line keys of one map up, and put a colon and a space after each"},
	{"non-map value is specified", "this line is not a key with a value", "put a colon and a space after the key, or indent the line under the one it belongs to"},
	{"unknown escape character", "text in double quotes has an unknown escape", `write \\ for a backslash, or use single quotes`},
	{"block sequence entries are not allowed", "a list cannot begin on the line of its key", "put each - on a line of its own, or write [a, b]"},
	{"value is not allowed in this context", "this line does not fit what is above it", "line it up: either all items of a list, or all keys of a map"},
	{"invalid key for this map", "this cannot be a key", "write the key as plain text"},
}
