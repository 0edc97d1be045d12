package definition

import "fmt"

// shape is what a node of the definition is.
type shape int

const (
	kindNull shape = iota
	kindText
	kindInt
	kindNumber
	kindBool
	kindList
	kindMap
)

// String names the shape as a message does.
func (k shape) String() string {
	return [...]string{"nothing", "text", "a whole number", "a number", "true or false", "a list", "a map"}[k]
}

// node is one value of the definition with its place. Once checked against the
// schema, nodes are not changed: merging makes new ones.
type node struct {
	kind   shape
	raw    string    // a scalar as written, without quotes
	value  any       // a scalar's value: string, int64, uint64, float64, bool or nil
	odd    bool      // a number that is not written in plain decimal
	at     span      // what a message underlines: a scalar's text, otherwise the key or the bracket
	items  []*node   // of a list
	pairs  []pair    // of a map, in file order
	made   bool      // not written in the file: a default
	holes  bool      // a map with a key that could not be read
	broken bool      // a mistake in it is reported already: what follows from it is not
	label  nodeLabel // how messages call it
}

// pair is one key of a map.
type pair struct {
	key string
	at  span
	val *node
}

// nodeLabel is how messages call a node: its key, and which item of a list.
type nodeLabel struct {
	key  string
	item int // from 1; 0: not an item of a list
}

// String gives "port", "item 2 of command" or "the definition".
func (l nodeLabel) String() string {
	switch {
	case l.item > 0 && l.key == "":
		return fmt.Sprintf("item %d", l.item)
	case l.item > 0:
		return fmt.Sprintf("item %d of %s", l.item, short(l.key))
	case l.key == "":
		return "the definition"
	default:
		return short(l.key)
	}
}

// get gives the value of a key, nil when it is absent or n is not a map.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.val
		}
	}
	return nil
}

// keyAt gives where a key of a map stands; the map's own place when it is not there.
func (n *node) keyAt(key string) span {
	for _, p := range n.pairs {
		if p.key == key {
			return p.at
		}
	}
	return n.at
}

// with gives a copy of a map in which key has the value, at its old position if
// it was there.
func (n *node) with(p pair) *node {
	out := *n
	out.pairs = make([]pair, 0, len(n.pairs)+1)
	found := false
	for _, old := range n.pairs {
		if old.key == p.key {
			old, found = p, true
		}
		out.pairs = append(out.pairs, old)
	}
	if !found {
		out.pairs = append(out.pairs, p)
	}
	return &out
}

// without gives a copy of a map that lacks a key.
func (n *node) without(key string) *node {
	out := *n
	out.pairs = nil
	for _, p := range n.pairs {
		if p.key != key {
			out.pairs = append(out.pairs, p)
		}
	}
	return &out
}

// json gives the node as the values that JSON has: every number is a float64.
func (n *node) json() any {
	switch n.kind {
	case kindMap:
		out := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			out[p.key] = p.val.json()
		}
		return out
	case kindList:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = item.json()
		}
		return out
	case kindInt, kindNumber:
		return n.number()
	default:
		return n.value
	}
}

// scalar says that the node is a single value.
func (n *node) scalar() bool { return n.kind != kindMap && n.kind != kindList }
