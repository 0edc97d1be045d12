package definition

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// explainer puts what the schema refuses into words, at its place.
type explainer struct {
	f       *faults
	s       schemas
	root    *node
	mistook map[*node][]string // keys that an unknown key of the map was probably meant to be
}

// validate checks the tree against the schema and marks what is wrong as broken.
func validate(root *node, s schemas, f *faults) {
	var refused *jsonschema.ValidationError
	if err := s.checks.Validate(root.json()); !errors.As(err, &refused) {
		return
	}
	e := &explainer{f: f, s: s, root: root, mistook: map[*node][]string{}}
	e.names(root, s.root)
	all := leaves(refused, nil)
	slices.SortStableFunc(all, func(a, b *jsonschema.ValidationError) int {
		return order(a.ErrorKind) - order(b.ErrorKind)
	})
	for _, one := range all {
		e.explain(one)
	}
}

// names finds the refused key names itself: the validator's own report of them may
// carry another place (its InstanceLocation shares memory with later ones).
func (e *explainer) names(n *node, r *rule) {
	allowed := e.s.resolve(r.Names)
	for _, p := range n.pairs {
		if allowed != nil && !matches(allowed.Pattern, p.key) {
			e.badName(n, allowed, p)
		}
		if child := e.s.child(r, p.key); child != nil {
			e.names(p.val, child)
		}
	}
	for _, item := range n.items {
		if child := e.s.resolve(r.Items); child != nil {
			e.names(item, child)
		}
	}
}

// leaves gives the refusals that have no further cause, but for those of names.
func leaves(v *jsonschema.ValidationError, out []*jsonschema.ValidationError) []*jsonschema.ValidationError {
	if _, names := v.ErrorKind.(*kind.PropertyNames); names {
		return out
	}
	if len(v.Causes) == 0 {
		return append(out, v)
	}
	for _, cause := range v.Causes {
		out = leaves(cause, out)
	}
	return out
}

// order puts unknown keys first: a key that is missing because it is misspelt is not reported.
func order(k jsonschema.ErrorKind) int {
	if _, ok := k.(*kind.AdditionalProperties); ok {
		return 0
	}
	return 1
}

func (e *explainer) explain(v *jsonschema.ValidationError) {
	n, r := e.root.find(v.InstanceLocation), e.s.at(v.InstanceLocation)
	if n.broken && n.scalar() || r == nil {
		return
	}
	switch k := v.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			e.unknownKey(n, r, v.InstanceLocation, name)
		}
	case *kind.Required:
		e.missing(n, r, k.Missing)
	case *kind.Type:
		e.wrongType(n, r, v.InstanceLocation)
	case *kind.Enum:
		e.notKnown(n, r)
	case *kind.Pattern:
		if strings.Contains(n.raw, "\x00") {
			e.f.add(n.at, nil, "remove it", "%s contains a NUL character", n.label)
			break
		}
		e.f.add(n.at, want(r), mend(n, r), "%s %q is not %s", n.label, short(n.raw), r.Title)
	case *kind.Minimum, *kind.Maximum, *kind.ExclusiveMinimum, *kind.ExclusiveMaximum:
		e.f.add(n.at, []string{"want:  " + reach(r)}, example(n, r), "%s %s is out of range", n.label, short(n.raw))
	case *kind.MinProperties, *kind.MinItems:
		e.f.add(n.at, want(r), example(n, r), "%s is empty", n.label)
	case *kind.MaxProperties:
		e.f.add(n.at, want(r), "begin each source with a - of its own", "%s has %d keys, but each source is an item of its own", n.label, k.Got)
	case *kind.UniqueItems:
		second := n.items[k.Duplicates[1]]
		e.f.add(second.at, nil, "remove one of them", "%s is in the list twice", short(second.raw))
	case *kind.Not:
		e.both(n, r)
	default:
		e.f.add(n.at, want(r), example(n, r), "%s is not %s", n.label, r.Title)
	}
	n.broken = true
}

// badName reports a key that is not written as keys of the map n must be.
func (e *explainer) badName(n *node, allowed *rule, p pair) {
	fix := "write it like  " + flow(firstExample(allowed)) + ":"
	if good := candidate(p.key, allowed); good != "" {
		fix = "write  " + good + ":"
	}
	n.broken = true
	e.f.add(p.at, want(allowed), fix, "%q in %s is not %s", short(p.key), n.label, allowed.Title)
}

func (e *explainer) missing(n *node, r *rule, keys []string) {
	for _, key := range keys {
		if n.holes || slices.Contains(e.mistook[n], key) {
			continue
		}
		child := e.s.resolve(r.Properties.get(key))
		fix := fmt.Sprintf("add  %s: %s", key, flow(firstExample(child)))
		e.f.add(n.at, want(child), fix, "%s has no %s", n.label, key)
	}
}

func (e *explainer) wrongType(n *node, r *rule, path []string) {
	if n.kind == kindNull {
		parent := e.s.at(path[:max(len(path)-1, 0)])
		noValue(e.f, n, r, parent != nil && slices.Contains(parent.Required, n.label.key))
		return
	}
	expected := types(r)
	if n.scalar() && r.Pattern != "" && !r.wants("object") && !r.wants("array") {
		expected = r.Title
	}
	e.f.add(n.at, want(r), mend(n, r), "%s must be %s, not %s", n.label, expected, n.kind)
}

// noValue reports a key that is given without a value.
func noValue(f *faults, n *node, r *rule, required bool) {
	fix := example(n, r)
	if !required {
		fix = "remove it, or " + fix
	}
	f.add(n.at, want(r), fix, "%s has no value", n.label)
}

func (e *explainer) notKnown(n *node, r *rule) {
	known := r.known()
	if len(known) == 0 {
		e.f.add(n.at, want(r), "remove it, or "+example(n, r), "%s cannot be %s", n.label, short(n.raw))
		return
	}
	lines := want(r)
	if len(known) <= 12 {
		lines = []string{"known: " + strings.Join(known, ", ")}
	}
	fix := example(n, r)
	if good := candidate(n.raw, r); good != "" {
		fix = "write  " + put(n, good)
	} else if len(known) == 1 {
		fix = "write  " + put(n, known[0])
	} else if near := nearest(n.raw, known); near != "" {
		fix = "write  " + put(n, near)
	}
	e.f.add(n.at, lines, fix, "%s %q is not known", n.label, short(n.raw))
}

// both reports two keys of which only one may be there.
func (e *explainer) both(n *node, r *rule) {
	keys := r.Not.Required
	at := n.at
	for _, p := range n.pairs {
		if p.key == keys[len(keys)-1] {
			at = p.at
		}
	}
	e.f.add(at, nil, "keep one of them", "%s has both %s", n.label, strings.Join(keys, " and "))
}

// want says what was expected.
func want(r *rule) []string {
	text := r.form
	if text == "" {
		text = r.Description
	}
	text, _, _ = strings.Cut(text, ". ")
	text = strings.TrimSuffix(text, ".")
	if text == "" {
		return []string{"want:  " + r.Title}
	}
	return []string{"want:  " + r.Title + " – " + lowerFirst(text)}
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' || strings.HasPrefix(s, "A ") {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// types says which types are allowed, as a message does.
func types(r *rule) string {
	words := map[string]string{"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list", "object": "a map"}
	var out []string
	for _, t := range r.Type {
		if word := words[t]; word != "" {
			out = append(out, word)
		}
	}
	return strings.Join(out, " or ")
}

// reach says the range of a number.
func reach(r *rule) string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	switch {
	case r.Minimum != nil && r.Maximum != nil:
		return fmt.Sprintf("%s from %s to %s", r.Title, number(*r.Minimum), number(*r.Maximum))
	case r.Maximum != nil:
		return fmt.Sprintf("%s above 0 and at most %s", r.Title, number(*r.Maximum))
	default:
		return r.Title
	}
}
