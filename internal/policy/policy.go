// Package policy holds what admission is about, as values: the facts that are known
// of a release, the policy document of an environment, and the verdict. The document
// (YAML, read strictly) names rules, each a CEL expression (https://cel.dev) and a
// sentence that tells people why it is there, and groups of owners of keys.
//
// The expressions are not evaluated here, but by package judge, in a program of its
// own: the CEL library costs every start of a program that links it, and nothing that
// an expression does may harm the server.
//
// Start at [Parse], [Facts] and [Verdict]. docs/policy.md is made from the types.
package policy

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

//go:embed schema.json
var schemaText []byte

// Limits of a policy.
const (
	MaxSize  = 256 << 10 // bytes of the document
	maxRules = 100
	MaxExpr  = 4 << 10 // bytes of an expression
)

// How a release is asked for, which a rule may be limited to.
const (
	Deploy   = "deploy"
	Rollback = "rollback"
)

// Policy says what has to hold of a release before it may run in an environment.
type Policy struct {
	Digest     digest.Digest // of the document's bytes
	Groups     map[string][]string
	Rules      []Rule // in the order of the file
	BreakGlass *BreakGlass

	doc *definition.Document
}

// Rule is one rule. All that apply have to hold.
type Rule struct {
	Name  string
	Why   string   // why it is there, for people
	Allow string   // CEL, of type bool
	On    []string // kinds that it applies to; empty: all

	expr definition.Value
}

// BreakGlass says who may admit a release in spite of the rules.
type BreakGlass struct {
	Group string // of approvers
	Count int    // how many of it have to agree, at least 2
}

// Applies says whether the rule is asked when a release comes in this way.
func (r Rule) Applies(kind string) bool { return len(r.On) == 0 || slices.Contains(r.On, kind) }

// Parse reads a policy. name is how messages call the file. Every mistake is found in
// one go: the error is a fault.List of kind Invalid. Expressions are not looked at.
func Parse(name string, src []byte) (*Policy, error) {
	if len(src) > MaxSize {
		return nil, fault.New(fault.Invalid, "the policy has %d bytes; at most %d are read", len(src), MaxSize).At(name)
	}
	doc := definition.ReadDocument(name, src, schemaText)
	p := &Policy{Digest: digest.FromBytes(src), Groups: map[string][]string{}, doc: doc}
	if doc.Root() == (definition.Value{}) {
		return nil, doc.Err()
	}
	doc.Root().Get("groups").Each(func(name string, v definition.Value) { p.group(name, v) })
	doc.Root().Get("rules").Each(func(name string, v definition.Value) { p.rule(name, v) })
	if len(p.Rules) > maxRules {
		doc.Add(doc.Root().Get("rules"), 0, 0, "join rules that ask for the same", "there are %d rules; at most %d are possible", len(p.Rules), maxRules)
	}
	if b := doc.Root().Get("breakGlass"); b != (definition.Value{}) {
		p.breakGlass(b)
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) group(name string, v definition.Value) {
	members := v.Texts()
	seen := map[string]bool{}
	for _, m := range members {
		if seen[m] {
			p.doc.Add(v, 0, 0, "name each owner once", "group %s has %s twice", name, m)
		}
		seen[m] = true
	}
	p.Groups[name] = members
}

func (p *Policy) rule(name string, v definition.Value) {
	r := Rule{Name: name, Why: strings.TrimSpace(v.Get("why").Text()), Allow: v.Get("allow").Text(), On: v.Get("on").Texts(), expr: v.Get("allow")}
	if len(r.Allow) > MaxExpr {
		p.doc.Add(r.expr, 0, 0, "make several rules of it", "the expression has %d bytes; at most %d are possible", len(r.Allow), MaxExpr)
	}
	p.Rules = append(p.Rules, r)
}

func (p *Policy) breakGlass(v definition.Value) {
	b := &BreakGlass{Group: v.Get("group").Text(), Count: 2}
	members, known := p.Groups[b.Group]
	if text := v.Get("count").Text(); text != "" && p.doc.Sound() {
		if err := json.Unmarshal([]byte(text), &b.Count); err != nil {
			p.doc.Add(v.Get("count"), 0, 0, "write  count: 2", "count is not a plain number")
		}
	}
	switch {
	case !p.doc.Sound():
	case !known:
		p.doc.Add(v.Get("group"), 0, 0, "add it under  groups:", "there is no group %q", b.Group)
	case b.Count > len(members):
		p.doc.Add(v, 0, 0, "ask for fewer, or add owners to the group", "%d have to agree and the group %s has %d", b.Count, b.Group, len(members))
	}
	p.BreakGlass = b
}

// Add reports a mistake in a rule's expression; line and column, from 1, count within
// it. A line of 0 means the whole of it.
func (p *Policy) Add(r Rule, line, column int, fix, format string, args ...any) {
	p.doc.Add(r.expr, line, column, fix, format, args...)
}

// Err gives what was added, at its place; nil when nothing was.
func (p *Policy) Err() error { return p.doc.Err() }

// In lists the groups that an owner is in, sorted.
func (p *Policy) In(owner string) []string {
	groups := []string{}
	for name, members := range p.Groups {
		if slices.Contains(members, owner) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return groups
}

// strict decodes one JSON value with nothing unknown in it and nothing after it.
func strict(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}
