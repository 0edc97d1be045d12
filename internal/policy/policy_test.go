package policy_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

func TestParse(t *testing.T) {
	src, err := os.ReadFile("../../examples/policy/production.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("production.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 7 || p.Rules[0].Name != "signed" || p.Rules[6].Name != "working-hours" {
		t.Errorf("rules: %+v", p.Rules)
	}
	if r := p.Rules[3]; !r.Applies(policy.Deploy) || r.Applies(policy.Rollback) || r.Why == "" {
		t.Errorf("%+v", r)
	}
	if !p.Rules[0].Applies(policy.Rollback) {
		t.Error("a rule without on: does not apply to a rollback")
	}
	if diff := cmp.Diff(&policy.BreakGlass{Group: "operators", Count: 2}, p.BreakGlass); diff != "" {
		t.Error(diff)
	}
	if got := strings.Join(p.In("anna"), " "); got != "operators" || p.Digest != digest.FromBytes(src) {
		t.Errorf("anna is in %q, digest %s", got, p.Digest)
	}
}

// All mistakes are told at once, each with its place and what was meant.
func TestMistakes(t *testing.T) {
	_, err := policy.Parse("p.yaml", []byte(`groups:
  Operators: [anna]
  ops: [anna, anna]
rules:
  one:
    wy: because
    allow: "true"
  two:
    why: ""
    alow: "true"
  three:
    why: because
    allow: "true"
    on: [deploi]
  three:
    why: because
    allow: "true"
breakGlas: {group: ops}
`))
	var list fault.List
	var ok bool
	if list, ok = err.(fault.List); !ok {
		t.Fatalf("%T %v", err, err)
	}
	text := list.Error()
	for _, want := range []string{
		`p.yaml:2:3: `, `p.yaml:3:8: group ops has anna twice`, `p.yaml:6:5: unknown key "wy" in one`, `write  why:`, `p.yaml:9:10: `,
		`p.yaml:10:5: unknown key "alow" in two`, `p.yaml:14:10: `, "known: deploy, rollback", `p.yaml:15:3: key "three" is given twice`, `p.yaml:18:1: unknown key "breakGlas"`, "write  breakGlass:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	for src, want := range map[string]string{
		"": "empty", "rules: [": "does not end", "- a": "a list", "rules: {a: {why: x, allow: y}}\nbreakGlass: {group: x}": `no group "x"`,
		"groups: {x: [a]}\nrules: {a: {why: x, allow: y}}\nbreakGlass: {group: x}":              "2 have to agree and the group x has 1",
		"groups: {x: [a, b]}\nrules: {a: {why: x, allow: y}}\nbreakGlass: {group: x, count: 1}": "count",
		"rules: {}": "rules", strings.Repeat("a", policy.MaxSize+1): "bytes", "rules: {a: {why: x, allow: &b y}}": "anchors",
		"rules: {a: {why: x, allow: '" + strings.Repeat("a", policy.MaxExpr+1) + "'}}": "expression has",
	} {
		if _, err := policy.Parse("p.yaml", []byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", src, err, want)
		}
	}
}

// Facts that are printed are read again, and what they do not have is refused.
func TestFacts(t *testing.T) {
	f := policy.Facts{App: "site", Env: "production", Kind: policy.Deploy, Now: time.Unix(1e9, 0).UTC(), Release: policy.Release{Number: 3, Approvals: []policy.Approval{{Owner: "anna"}}}}
	text, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.ParseFacts("f", text)
	if diff := cmp.Diff(f, again); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"", "{}", `{"nwo":1}`, string(text) + "{}", "null"} {
		if _, err := policy.ParseFacts("f", []byte(bad)); err == nil || fault.Of(err).Fix == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	d, err := f.Digest()
	f.Release.Approvals[0].Owner = "boris"
	other, err2 := f.Digest()
	if err != nil || err2 != nil || d == other {
		t.Error("facts that differ have one digest")
	}
}

// What goes into the record is small, however much a verdict tells.
func TestVerdictData(t *testing.T) {
	v := policy.Verdict{Policy: "sha256:1", Facts: "sha256:2", BrokenBy: []string{"anna", "boris"}}
	for i := range 100 {
		v.Rules = append(v.Rules, policy.Judged{Name: strings.Repeat("a", 60) + string(rune('a'+i%26)) + string(rune('a'+i/26)), Outcome: policy.Errs, What: strings.Repeat("ä", 5000)})
		v.Short = append(v.Short, strings.Repeat("ü", 5000))
	}
	raw, err := json.Marshal(v.Data())
	if err != nil || len(raw) > 40_000 {
		t.Errorf("%d bytes (%v)", len(raw), err)
	}
	if v.Data()["breakGlass"] != "anna, boris" {
		t.Error("who broke the glass is not told")
	}
}

func FuzzParse(f *testing.F) {
	src, err := os.ReadFile("../../examples/policy/production.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(src)
	f.Add([]byte("rules: {a: {why: x, allow: |\n y}}"))
	f.Add([]byte("groups: {x: [a, a]}\nrules:\n  a: {why: 'x', allow: \"\\x41\", on: [deploy, deploy]}\nbreakGlass: {group: y, count: 0x3}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := policy.Parse("p", src)
		if (p == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err != nil {
			return
		}
		for _, r := range p.Rules {
			if r.Name == "" || r.Why == "" || strings.TrimSpace(r.Allow) == "" {
				t.Errorf("an empty rule: %+v", r)
			}
			p.Add(r, 1, 1, "x", "y")
			p.Add(r, 7, 9, "x", "z")
		}
		if p.Err() == nil {
			t.Error("what was added is not there")
		}
	})
}

func FuzzParseFacts(f *testing.F) {
	f.Add([]byte(`{"now":"2026-01-01T00:00:00Z","env":"a","kind":"deploy"}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if got, err := policy.ParseFacts("f", src); err == nil {
			if _, err := got.Marshal(); err != nil {
				t.Error(err)
			}
		}
	})
}
