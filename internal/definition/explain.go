package definition

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// explainer puts what the schema refuses into words, at its place.
type explainer struct {
	f       *faults
	s       schemas
	mistook map[*node][]string // keys that an unknown key of the map was probably meant to be
}

// validate checks the tree against the schema and marks what is wrong as broken.
func validate(root *node, s schemas, f *faults) {
	all := s.refusals(root)
	// Unknown keys first: a key that is missing because it is misspelt is not reported.
	slices.SortStableFunc(all, func(a, b refusal) int { return unknownFirst(a) - unknownFirst(b) })
	e := &explainer{f: f, s: s, mistook: map[*node][]string{}}
	for _, one := range all {
		e.explain(one)
	}
}

func unknownFirst(r refusal) int {
	if r.by == byOthers {
		return 0
	}
	return 1
}

func (e *explainer) explain(v refusal) {
	n, r := v.node, v.rule
	if n.broken && n.scalar() {
		return
	}
	switch v.by {
	case byOthers:
		for _, name := range v.keys {
			e.unknownKey(n, r, v.path, name)
		}
	case byNames:
		for _, name := range v.keys {
			e.badName(n, e.s.resolve(r.Names), name)
		}
	case byRequired:
		e.missing(n, r, v.keys)
	case byType:
		e.wrongType(n, r, v.path)
	case byEnum:
		e.notKnown(n, r)
	case byPattern:
		if len(r.known()) > 0 {
			e.notKnown(n, r)
			break
		}
		if strings.Contains(n.raw, "\x00") {
			e.f.add(n.at, nil, "remove it", "%s contains a NUL character", n.label)
			break
		}
		e.f.add(n.at, want(r), mend(n, r), "%s %q is not %s", n.label, short(n.raw), r.Title)
	case byRange:
		e.f.add(n.at, []string{"want:  " + reach(r)}, example(n, r), "%s %s is out of range", n.label, short(n.raw))
	case byMinProperties, byMinItems:
		e.f.add(n.at, want(r), example(n, r), "%s is empty", n.label)
	case byMaxProperties:
		e.several(n, r)
	case byUniqueItems:
		e.f.add(v.twin.at, nil, "remove one of them", "%s is in the list twice", short(v.twin.raw))
	case byNot:
		e.both(n, r)
	}
	n.broken = true
}

// several reports a map with more keys than the one that it may have.
func (e *explainer) several(n *node, r *rule) {
	fix, why := "begin each source with a - of its own", "each source is an item of its own"
	if r.wants("string") {
		fix, why = "keep one of them", "one is chosen"
	}
	e.f.add(n.at, want(r), fix, "%s has %d keys, but %s", n.label, len(n.pairs), why)
}

// badName reports a key that is not written as keys of the map n must be.
func (e *explainer) badName(n *node, allowed *rule, key string) {
	fix := "write it like  " + flow(firstExample(allowed)) + ":"
	if good := candidate(key, allowed); good != "" {
		fix = "write  " + good + ":"
	}
	e.f.add(n.keyAt(key), want(allowed), fix, "%q in %s is not %s", short(key), n.label, allowed.Title)
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
	e.f.add(n.keyAt(keys[len(keys)-1]), nil, "keep one of them", "%s has both %s", n.label, strings.Join(keys, " and "))
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
