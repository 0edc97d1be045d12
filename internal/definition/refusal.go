package definition

import (
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"sync"
)

// keyword is the part of a schema that refuses a value.
type keyword string

const (
	byType          keyword = "type"
	byEnum          keyword = "enum"
	byPattern       keyword = "pattern"
	byRange         keyword = "minimum" // or exclusiveMinimum, or maximum
	byMinItems      keyword = "minItems"
	byUniqueItems   keyword = "uniqueItems"
	byMinProperties keyword = "minProperties"
	byMaxProperties keyword = "maxProperties"
	byRequired      keyword = "required"
	byNot           keyword = "not"
	byOthers        keyword = "additionalProperties"
	byNames         keyword = "propertyNames"
)

// refusal is one thing that the schema does not allow.
type refusal struct {
	by   keyword
	node *node
	rule *rule    // what the node should be
	path []string // of keys and indexes, from the root to the node
	keys []string // that are missing, not known, or not written as names must be
	twin *node    // the second of two equal items
}

// comparer compares nodes with the schema: JSON Schema 2020-12 as far as the document
// uses it. FuzzSchema holds it against a complete implementation.
type comparer struct {
	s     schemas
	path  []string
	found []refusal
}

// refusals gives everything that the schema does not allow, in the order of the file.
func (s schemas) refusals(root *node) []refusal {
	c := &comparer{s: s}
	c.check(root, s.root)
	return c.found
}

func (c *comparer) refuse(by keyword, n *node, r *rule, keys ...string) {
	c.found = append(c.found, refusal{by: by, node: n, rule: r, path: slices.Clone(c.path), keys: keys})
}

// check compares a node with a rule whose references are resolved.
func (c *comparer) check(n *node, r *rule) {
	if len(r.Type) > 0 && !slices.ContainsFunc(r.Type, n.is) {
		c.refuse(byType, n, r)
		return
	}
	if r.Enum != nil && !slices.ContainsFunc(r.Enum, n.equals) {
		c.refuse(byEnum, n, r)
		return
	}
	switch n.kind {
	case kindMap:
		c.checkMap(n, r)
	case kindList:
		c.checkList(n, r)
	case kindText:
		if text, _ := n.value.(string); r.Pattern != "" && !matches(r.Pattern, text) {
			c.refuse(byPattern, n, r)
		}
	case kindInt, kindNumber:
		v := n.number()
		if r.Minimum != nil && v < *r.Minimum || r.ExclusiveMin != nil && v <= *r.ExclusiveMin || r.Maximum != nil && v > *r.Maximum {
			c.refuse(byRange, n, r)
		}
	}
	if r.Not != nil && c.allows(n, r.Not) {
		c.refuse(byNot, n, r)
	}
}

func (c *comparer) checkMap(n *node, r *rule) {
	if len(n.pairs) < r.MinProperties {
		c.refuse(byMinProperties, n, r)
	}
	if r.MaxProperties > 0 && len(n.pairs) > r.MaxProperties {
		c.refuse(byMaxProperties, n, r)
	}
	var missing, unknown, names []string
	for _, key := range r.Required {
		if n.get(key) == nil {
			missing = append(missing, key)
		}
	}
	named := c.s.resolve(r.Names)
	for _, p := range n.pairs {
		if named != nil && !c.allows(&node{kind: kindText, value: p.key}, named) {
			names = append(names, p.key)
		}
		known := r.Properties.get(p.key)
		if known == nil {
			known = r.Others
		}
		switch {
		case known == nil:
		case known.closed:
			unknown = append(unknown, p.key)
		default:
			c.below(p.key, p.val, known)
		}
	}
	if missing != nil {
		c.refuse(byRequired, n, r, missing...)
	}
	if unknown != nil {
		c.refuse(byOthers, n, r, unknown...)
	}
	if names != nil {
		c.refuse(byNames, n, r, names...)
	}
}

func (c *comparer) checkList(n *node, r *rule) {
	if len(n.items) < r.MinItems {
		c.refuse(byMinItems, n, r)
	}
	if i := twin(n.items); r.UniqueItems && i > 0 {
		c.refuse(byUniqueItems, n, r)
		c.found[len(c.found)-1].twin = n.items[i]
	}
	if r.Items == nil {
		return
	}
	for i, item := range n.items {
		c.below(strconv.Itoa(i), item, r.Items)
	}
}

func (c *comparer) below(step string, n *node, r *rule) {
	c.path = append(c.path, step)
	c.check(n, c.s.resolve(r))
	c.path = c.path[:len(c.path)-1]
}

// allows says whether a rule refuses nothing.
func (c *comparer) allows(n *node, r *rule) bool {
	inner := &comparer{s: c.s}
	inner.check(n, r)
	return len(inner.found) == 0
}

// twin is the index of the first item that an earlier one equals; 0 if there is none.
func twin(items []*node) int {
	for i, item := range items {
		for _, earlier := range items[:i] {
			if reflect.DeepEqual(item.json(), earlier.json()) {
				return i
			}
		}
	}
	return 0
}

// is says whether the node has a type of JSON Schema.
func (n *node) is(kind string) bool {
	switch n.kind {
	case kindNull:
		return kind == "null"
	case kindText:
		return kind == "string"
	case kindInt:
		return kind == "integer" || kind == "number"
	case kindNumber:
		return kind == "number" || kind == "integer" && n.number() == math.Trunc(n.number())
	case kindBool:
		return kind == "boolean"
	case kindList:
		return kind == "array"
	default:
		return kind == "object"
	}
}

// equals says whether the node has a scalar value of the schema.
func (n *node) equals(v any) bool {
	if number, ok := v.(float64); ok {
		return n.is("number") && n.number() == number
	}
	return n.scalar() && n.value == v
}

// number gives the value of a number.
func (n *node) number() float64 {
	switch v := n.value.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// patterns are those of the schema, compiled when they are first needed.
var patterns sync.Map // of text to *regexp.Regexp

// matches says whether a pattern of the schema, which is valid, matches.
func matches(pattern, text string) bool {
	re, ok := patterns.Load(pattern)
	if !ok {
		re, _ = patterns.LoadOrStore(pattern, regexp.MustCompile(pattern))
	}
	return re.(*regexp.Regexp).MatchString(text)
}
