package definition

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schema.json
var schemaText []byte

// Schema gives the JSON Schema (draft 2020-12) of ashlar.yaml: what Parse checks
// against, what editors use, and what Reference is made from.
func Schema() []byte { return bytes.Clone(schemaText) }

// rule is one schema of the document, as far as messages, defaults and the
// reference page need it. Its properties are in the order of the document.
type rule struct {
	Ref         string          `json:"$ref"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Type        oneOrMore       `json:"type"`
	Enum        []any           `json:"enum"`
	Pattern     string          `json:"pattern"`
	Minimum     *float64        `json:"minimum"`
	Maximum     *float64        `json:"maximum"`
	Required    []string        `json:"required"`
	Default     json.RawMessage `json:"default"`
	Examples    []any           `json:"examples"`
	Not         *rule           `json:"not"`
	Properties  properties      `json:"properties"`
	Names       *rule           `json:"propertyNames"`
	Others      *rule           `json:"additionalProperties"`
	Items       *rule           `json:"items"`
	Defs        properties      `json:"$defs"`
	closed      bool            // no other properties
	form        string          // how a value is written, when Description says what it is for
}

// UnmarshalJSON also takes the schemas true and false.
func (r *rule) UnmarshalJSON(b []byte) error {
	if s := string(b); s == "true" || s == "false" {
		r.closed = s == "false"
		return nil
	}
	type plain rule
	return json.Unmarshal(b, (*plain)(r))
}

// oneOrMore is a JSON text or a list of texts.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*o = make(oneOrMore, 1)
		return json.Unmarshal(b, &(*o)[0])
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// properties are the schemas of an object's keys, in order.
type properties []property

type property struct {
	name string
	rule *rule
}

func (p *properties) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		one := property{fmt.Sprint(name), &rule{}}
		if err := d.Decode(one.rule); err != nil {
			return err
		}
		*p = append(*p, one)
	}
	return nil
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

// schemas is the document in both of its forms.
type schemas struct {
	root   *rule
	checks *jsonschema.Schema
}

// loadSchemas reads the embedded document once. It panics when the document is
// not a valid schema, which a test would have shown.
var loadSchemas = sync.OnceValue(func() schemas {
	s := schemas{root: &rule{}}
	if err := json.Unmarshal(schemaText, s.root); err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaText))
	if err != nil {
		panic(err)
	}
	const at = "schema.json"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, doc); err != nil {
		panic(err)
	}
	s.checks = c.MustCompile(at)
	return s
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

// known gives the texts of an enumeration, none if there is none.
func (r *rule) known() []string {
	var out []string
	for _, v := range r.Enum {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

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
	case []any:
		out.kind, out.value = kindList, nil
		for i, item := range v {
			out.items = append(out.items, fromJSON(item, nodeLabel{label.key, i + 1}, at))
		}
	case string:
		out.kind, out.raw = kindText, v
	case float64:
		out.kind, out.value, out.raw = kindInt, int64(v), fmt.Sprint(int64(v))
	case bool:
		out.kind = kindBool
	}
	return out
}
