package definition

import (
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

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

// reader turns the YAML library's tree into nodes.
type reader struct {
	f        *faults
	searches int // so far, for text that the library misplaced
}

// maxSearches bounds what looking for misplaced text may cost.
const maxSearches = 1000

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
	r.searches++
	if t.Type == token.NullType || t.Type == token.ImplicitNullType || text == "" || r.searches > maxSearches {
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
	line := r.f.src.chars(at.line)
	if at.col < 1 || at.col-1+at.width > len(line) {
		return false
	}
	return strings.HasPrefix(string(line[at.col-1:at.col-1+at.width]), text)
}
