package definition

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

//go:embed schema.json
var schemaText []byte

// Schema gives the JSON Schema (draft 2020-12) of ashlar.yaml: what Parse checks
// against, what editors use, and what Reference is made from.
func Schema() []byte { return bytes.Clone(schemaText) }

// rule is one schema of the document: the keywords that it uses, and no others, as
// decodeRule holds. Its properties are in the order of the document.
type rule struct {
	Ref           string
	Title         string
	Description   string
	Type          []string
	Enum          []any
	Pattern       string
	Minimum       *float64
	ExclusiveMin  *float64
	Maximum       *float64
	MinItems      int
	UniqueItems   bool
	MinProperties int
	MaxProperties int // 0: any number
	Required      []string
	Default       json.RawMessage
	Examples      []any
	Not           *rule
	Properties    properties
	Names         *rule
	Others        *rule
	Items         *rule
	Defs          properties
	closed        bool   // the schema false: no other properties
	form          string // how a value is written, when Description says what it is for
}

// properties are the schemas of an object's keys, in order.
type properties []property

type property struct {
	name string
	rule *rule
}

func (p properties) get(name string) *rule {
	for _, one := range p {
		if one.name == name {
			return one.rule
		}
	}
	return nil
}

func (p properties) names() []string {
	out := make([]string, len(p))
	for i, one := range p {
		out[i] = one.name
	}
	return out
}

// schemas is the document, with which references are resolved.
type schemas struct{ root *rule }

// loadSchemas reads the embedded document once. It panics when the document is
// not a schema that is understood, which a test would have shown.
var loadSchemas = sync.OnceValue(func() schemas {
	root, err := decodeRule(json.NewDecoder(bytes.NewReader(schemaText)))
	if err != nil {
		panic(err)
	}
	return schemas{root}
})

// resolve follows a reference; what stands beside it wins over what it names.
func (s schemas) resolve(r *rule) *rule {
	for r != nil && r.Ref != "" {
		base := s.root.Defs.get(strings.TrimPrefix(r.Ref, "#/$defs/"))
		if base == nil {
			return r
		}
		out := *base
		if r.Description != "" {
			out.form, out.Description = base.Description, r.Description
		}
		if r.Default != nil {
			out.Default = r.Default
		}
		if r.Examples != nil {
			out.Examples = r.Examples
		}
		r = &out
	}
	return r
}

// at gives the rule for the value that a path of keys and indexes leads to.
func (s schemas) at(path []string) *rule {
	r := s.root
	for _, step := range path {
		r = s.child(r, step)
		if r == nil {
			return nil
		}
	}
	return r
}

// child gives the rule of a key or list item of what r describes.
func (s schemas) child(r *rule, step string) *rule {
	switch known := r.Properties.get(step); {
	case known != nil:
		return s.resolve(known)
	case r.Others != nil && !r.Others.closed:
		return s.resolve(r.Others)
	case r.Items != nil:
		return s.resolve(r.Items)
	}
	return nil
}

// wants says that a type is allowed.
func (r *rule) wants(kind string) bool { return slices.Contains(r.Type, kind) }

// known gives the texts of an enumeration, or of a pattern that is one (a value may
// be text or a map, to which an enumeration would apply too); none if there is none.
func (r *rule) known() []string {
	if words := strings.TrimSuffix(strings.TrimPrefix(r.Pattern, "^("), ")$"); strings.Contains(words, "|") && !strings.ContainsFunc(words, special) {
		return strings.Split(words, "|")
	}
	var out []string
	for _, v := range r.Enum {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// special says that a character is neither of a word nor between words.
func special(r rune) bool { return (r < 'a' || r > 'z') && r != '-' && r != '|' }

// fill gives n with the defaults of the keys that it lacks, all the way down.
func (s schemas) fill(n *node, r *rule) *node {
	r = s.resolve(r)
	if n == nil || r == nil || n.kind != kindMap {
		return n
	}
	filled := *n
	filled.pairs = slices.Clone(n.pairs)
	for i, p := range filled.pairs {
		if child := s.child(r, p.key); child != nil {
			filled.pairs[i].val = s.fill(p.val, child)
		}
	}
	n = &filled
	for _, p := range r.Properties {
		def := s.resolve(p.rule)
		if n.get(p.name) != nil || def.Default == nil {
			continue
		}
		var value any
		if err := json.Unmarshal(def.Default, &value); err != nil {
			continue
		}
		made := fromJSON(value, nodeLabel{key: p.name}, n.at)
		n = n.with(pair{p.name, n.at, s.fill(made, def)})
	}
	return n
}

// fromJSON makes a node of a default of the schema.
func fromJSON(v any, label nodeLabel, at span) *node {
	out := &node{label: label, at: at, made: true, value: v}
	switch v := v.(type) {
	case map[string]any:
		out.kind, out.value = kindMap, nil
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out.pairs = append(out.pairs, pair{key, at, fromJSON(v[key], nodeLabel{key: key}, at)})
		}
	case []any:
		out.kind, out.value = kindList, nil
		for i, item := range v {
			out.items = append(out.items, fromJSON(item, nodeLabel{label.key, i + 1}, at))
		}
	case string:
		out.kind, out.raw = kindText, v
	case float64:
		out.kind, out.value, out.raw = kindInt, int64(v), fmt.Sprint(v)
		if v != float64(int64(v)) {
			out.kind, out.value = kindNumber, v
		}
	case bool:
		out.kind = kindBool
	}
	return out
}
