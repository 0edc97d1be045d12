package judge

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

var now = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC) // a Tuesday

func facts() policy.Facts {
	statement := func(kind, owner string, index int) policy.Statement {
		return policy.Statement{Kind: kind, Owner: owner, Index: index, Says: map[string]string{}}
	}
	summary := func(owner, resource, result string, at time.Duration) policy.Statement {
		s := statement("summary", owner, 30)
		s.Says = map[string]string{"resource": resource, "result": result, "time": now.Add(at).Format(time.RFC3339)}
		return s
	}
	const vendor, tested, own = "ashlar:vendor/prod", "ashlar:vendor/test", "ashlar:site/prod"
	return policy.Facts{
		App: "site", Env: "production", Kind: policy.Deploy, Actor: "root@host", Now: now, Current: 6,
		Release: policy.Release{
			Digest: "sha256:" + strings.Repeat("ab", 32), Number: 7, Created: now.Add(-time.Hour),
			Statements: []policy.Statement{
				statement("signature", "release-team", 11), summary("lab-server", "ashlar:site/lab", policy.Failed, -2*time.Hour), summary("lab-server", "ashlar:site/lab", policy.Passed, -time.Hour),
				summary("qa-server", "ashlar:site/qa", policy.Passed, -time.Hour), summary("qa-server", "ashlar:site/qa", policy.Failed, -time.Hour+time.Second)},
			Components: []policy.Component{
				{Name: "web", Artifact: "sha256:1", Listed: true, Packages: 3, Statements: []policy.Statement{
					statement("provenance", "ci", 12), statement("rebuild", "carla", 14), statement("rebuild", "dora", 15), statement("rebuild", "dora", 16),
					summary("vendor", vendor, policy.Passed, -time.Hour), summary("vendor", tested, policy.Passed, -time.Hour), summary("vendor", own, policy.Passed, -time.Hour)}},
				{Name: "db", Artifact: "sha256:2", Listed: true, Packages: 5, Statements: []policy.Statement{
					statement("provenance", "ci", 13), statement("rebuild", "carla", 17), statement("rebuild", "mallory", 18),
					summary("vendor", vendor, policy.Passed, -time.Hour), summary("vendor", tested, policy.Failed, -time.Hour), summary("vendor", own, policy.Passed, -time.Hour), summary("mallory", tested, policy.Passed, 0)}},
			},
			Approvals: []policy.Approval{{Owner: "anna", Index: 20}, {Owner: "mallory", Index: 21}, {Owner: "boris", Index: 22, BreakGlass: true}},
			Stays:     []policy.Stay{{Env: "staging", Since: now.Add(-40 * time.Minute), Proven: true}, {Env: "qa", Since: now.Add(-time.Hour), Till: now.Add(-50 * time.Minute)}},
			Vulnerabilities: policy.Vulnerabilities{Database: "sha256:" + strings.Repeat("cd", 32), Date: now.Add(-24 * time.Hour), Packages: 8, Found: []policy.Vulnerability{
				{ID: "CVE-1", Component: "db", Package: "pkg:deb/debian/openssl", Version: "3.0.1", Severity: "critical", Fixed: "3.0.2", Published: now.Add(-10 * 24 * time.Hour)},
				{ID: "CVE-2", Component: "db", Package: "pkg:deb/debian/zlib", Version: "1.2", Severity: "critical", Published: now.Add(-90 * 24 * time.Hour)},
				{ID: "CVE-3", Component: "web", Package: "pkg:golang/x", Version: "1", Severity: "high", Fixed: "2", Published: now.Add(-90 * 24 * time.Hour), Excused: "not reached"},
			}},
		},
		Trust: policy.Trust{Root: "sha256:0", Version: 1, Expires: now.Add(1000 * time.Hour)},
	}
}

func answer(t *testing.T, document string, f *policy.Facts) policy.Answer {
	t.Helper()
	j, err := New(time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	return j.Answer(policy.Question{Name: "p.yaml", Document: []byte(document), Facts: f})
}

func document(expr string) string {
	text, err := json.Marshal(expr)
	if err != nil {
		panic(err)
	}
	return "groups:\n  servers: [lab-server, qa-server]\n  operators: [anna, boris]\n  rebuilders: [carla, dora]\nrules:\n  r:\n    why: because\n    allow: " + string(text) + "\n"
}

func TestExpressions(t *testing.T) {
	for _, c := range []struct {
		expr, came string // what is told of it
		want       policy.Outcome
	}{
		{`signedBy("release-team")`, "release 7 is signed by release-team", policy.Holds},
		{`signedBy("ci")`, "no signature of release 7 by ci is believed", policy.Fails},
		{`builtBy("ci")`, "every component was built by ci", policy.Holds},
		{`builtBy("carla")`, "of web, db", policy.Fails},
		{`rebuiltBy(1, "rebuilders")`, "web by 2 of 1, db by 1 of 1", policy.Holds},
		{`rebuiltBy(2, "rebuilders")`, "web by 2 of 2, db by 1 of 2", policy.Fails},
		{`verifiedBy("lab-server", "ashlar:site/lab")`, "release 7 is passed for ashlar:site/lab by lab-server, on 2026-11-24T09:00:00Z", policy.Holds},
		{`verifiedBy("servers", "ashlar:site/qa")`, "release 7 is failed for ashlar:site/qa by qa-server, on 2026-11-24T09:00:01Z", policy.Fails},
		{`verifiedBy("qa-server", "ashlar:site/lab")`, "no summary for ashlar:site/lab by qa-server is believed of release 7", policy.Fails},
		{`verifiedBy("vendor", "ashlar:site/prod")`, "no summary for ashlar:site/prod by vendor is believed of release 7", policy.Fails}, // its artifacts passed, with other settings
		{`verifiedBy("vendor", "ashlar:vendor/prod")`, "every component passed for ashlar:vendor/prod by vendor", policy.Holds},
		{`verifiedBy("vendor", "ashlar:vendor/test")`, "nor of db", policy.Fails},
		{`soaked("staging", duration("30m"))`, "live in staging for 40m0s of 30m0s", policy.Holds},
		{`soaked("staging", duration("41m"))`, "for 40m0s of 41m0s", policy.Fails},
		{`soaked("qa", duration("1m"))`, "has not proven itself there", policy.Fails},
		{`soaked("lab", duration("1m"))`, "was never live in lab", policy.Fails},
		{`approvedBy(1, "operators")`, "approved by 1 of 1 in operators: anna (entry 20)", policy.Holds},
		{`approvedBy(2, "operators")`, "approved by 1 of 2 in operators: anna (entry 20)", policy.Fails},
		{`noFixable("critical", days(7))`, "CVE-1 in pkg:deb/debian/openssl 3.0.1", policy.Fails},
		{`noFixable("critical", days(11))`, "by database sha256:cdcdcdcdcdcd of 2026-11-23 in 8 packages", policy.Holds},
		{`noFixable("high", days(80))`, "0 fixable of severity high", policy.Holds},
		{`during("mon-fri", "09:00", "17:00", "Europe/Berlin")`, "it is Tue 2026-11-24 10:00 UTC", policy.Holds},
		{`during("sat,sun", "09:00", "17:00", "Europe/Berlin")`, "sat, sun from 09:00 to 17:00", policy.Fails},
		{`during("daily", "22:00", "11:30", "Europe/Berlin")`, "every day", policy.Holds},
		{`during("daily", "09:00", "11:00", "Europe/Berlin")`, "every day", policy.Fails}, // it is 11:00 there
		{`release.components.all(c, c.packages < 4)`, "is false", policy.Fails},
		{`release.number > 3 && env == "production"`, "release.number = 7", policy.Holds},
		{`release.approvals.exists(a, "operators" in a.groups && !a.breakGlass)`, "is true", policy.Holds},
		{`now - release.created < duration("2h")`, "release.created = 2026-11-24T09:00:00Z", policy.Holds},
		{`trust.version >= 1 && trust.expires > now`, "trust.version = 1", policy.Holds},
		{`release.stays[5].env == "x"`, "", policy.Errs},
		{`1 / (release.number - 7) == 0`, "", policy.Errs},
		{`noFixable(env, days(1))`, "", policy.Errs},
		{`days(200000) > days(1)`, "", policy.Errs},
	} {
		f := facts()
		a := answer(t, document(c.expr), &f)
		if a.Verdict == nil {
			t.Errorf("%s: %v", c.expr, a.Faults)
			continue
		}
		r := a.Verdict.Rules[0]
		if r.Outcome != c.want || a.Verdict.Admitted != (c.want == policy.Holds) {
			t.Errorf("%s: %s %s, want %s", c.expr, r.Outcome, r.What, c.want)
		}
		if !slices.ContainsFunc(r.Looked, func(l policy.Looked) bool { return strings.Contains(l.Came, c.came) }) && c.came != "" {
			t.Errorf("%s looked at %+v, want %q", c.expr, r.Looked, c.came)
		}
		if c.want == policy.Fails && len(r.Mend) == 0 {
			t.Errorf("%s fails and nothing is said of what would change it", c.expr)
		}
	}
}

// A severity that is not known, or a word that is none, may be any: it counts.
func TestUnknownSeverityCounts(t *testing.T) {
	for _, said := range []string{"unknown", "", "catastrophic"} {
		f := facts()
		f.Release.Vulnerabilities.Found = []policy.Vulnerability{
			{ID: "CVE-9", Component: "db", Package: "pkg:deb/debian/xz", Version: "5.6.0", Severity: said, Fixed: "5.6.2", Published: f.Now.Add(-10 * 24 * time.Hour)},
		}
		for _, asked := range []string{"low", "critical"} {
			a := answer(t, document(`noFixable("`+asked+`", days(7))`), &f)
			if v := a.Verdict; v.Admitted || !strings.Contains(v.Words(), "CVE-9") || !strings.Contains(strings.Join(v.Rules[0].Mend, ""), "xz 5.6.2") {
				t.Errorf("severity %q, %s asked for: %s", said, asked, v.Words())
			}
		}
		f.Release.Vulnerabilities.Found[0].Excused = "not reached"
		if a := answer(t, document(`noFixable("low", days(7))`), &f); !a.Verdict.Admitted {
			t.Errorf("severity %q, excused: %s", said, a.Verdict.Words())
		}
	}
}

// What is not known denies: no database, and packages that nobody listed.
func TestUnknownDenies(t *testing.T) {
	f := facts()
	f.Release.Vulnerabilities = policy.Vulnerabilities{}
	a := answer(t, document(`noFixable("critical", days(7))`), &f)
	if v := a.Verdict; v.Admitted || !strings.Contains(v.Words(), "no database") {
		t.Errorf("without a database: %+v", v)
	}
	f = facts()
	f.Release.Vulnerabilities.Unlisted = []string{"web"}
	a = answer(t, document(`noFixable("critical", days(99))`), &f)
	if v := a.Verdict; v.Admitted || !strings.Contains(v.Words(), "packages of web are not known") {
		t.Errorf("without a list: %+v", v)
	}
}

// No expression runs for long, holds much or panics: all of these deny.
func TestHostileExpressions(t *testing.T) {
	list := "[" + strings.Repeat("1,", 400) + "1]"
	for name, expr := range map[string]string{
		"nested loops":      fmt.Sprintf(`%s.all(a, %s.all(b, %s.all(c, a+b+c > 0)))`, list, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20].map(x, x)", list),
		"text that doubles": `["a"].map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).exists(x, size(x) > 0)`,
		"lists that double": `[[1]].map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).map(x, x+x+x+x+x+x+x+x).exists(x, size(x) > 0)`,
		"an overflow":       `9223372036854775807 + release.number > 0`,
		"a null":            `dyn(null).x == 1`,
		"a wrong type":      `dyn(release).numbr == 1`,
		"a regexp":          `"a".matches(release.digest + "(")`,
		"a bad time":        `timestamp(env) < now`,
		"a bad zone":        `now.getHours("Nowhere/Nowhere") == 1`,
		"a huge window":     `during("daily", env, "17:00", "UTC")`,
	} {
		f := facts()
		began := time.Now()
		a := answer(t, document(expr), &f)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if len(a.Faults) == 0 && a.Verdict.Admitted {
			t.Errorf("%s: admitted", name)
		}
		if a.Verdict != nil && a.Verdict.Rules[0].Outcome != policy.Errs {
			t.Errorf("%s: %+v", name, a.Verdict.Rules[0])
		}
	}
}

// Mistakes are told all at once, each with its place in the file.
func TestMistakes(t *testing.T) {
	src := `groups:
  operators: [anna, boris]
rules:
  one:
    why: because
    allow: signdBy("x")
  two:
    why: because
    allow: |
      release.number > 3 &&
        release.numbr == 2
  three:
    why: because
    allow: "approvedBy(3, 'operators')"
  four:
    why: because
    allow: approvedBy(1, "operatrs")
  five:
    why: because
    allow: release.number
  six:
    why: because
    allow: noFixable("awful", days(1)) && during("moonday", "1", "2", "UTC")
  seven:
    why: because
    allow: signedBy(3)
`
	a := answer(t, src, nil)
	want := []string{
		"p.yaml:6:12: rule one: undeclared reference to 'signdBy'", "p.yaml:11:16: rule two: undefined field 'numbr'",
		"p.yaml:14:13: rule three: 3 of the group operators cannot be: it has 2", `p.yaml:17:12: rule four: there is no group "operatrs"; known: operators`,
		"p.yaml:20:12: rule five gives int", `p.yaml:23:12: rule six: severity "awful"`, `p.yaml:23:43: rule six: "moonday" are no days`,
		"p.yaml:26:12: rule seven: found no matching overload for 'signedBy'",
	}
	if len(a.Faults) != len(want) {
		t.Errorf("%d mistakes, want %d", len(a.Faults), len(want))
	}
	for i, f := range a.Faults {
		if i < len(want) && !strings.HasPrefix(f.Where+": "+f.What, want[i]) || f.Kind != fault.Invalid || f.Fix == "" {
			t.Errorf("got\n%v\nwant %s", f, want[min(i, len(want)-1)])
		}
	}
}

// The glass is broken by enough different approvers of the group, when somebody asks
// for it, and never otherwise.
func TestBreakGlass(t *testing.T) {
	policyText := document(`env == "nowhere"`) + "breakGlass: {group: operators, count: 2}\n"
	for name, c := range map[string]struct {
		reason  string
		by      []policy.Approval
		policy  string
		admit   bool
		because string
	}{
		"two":               {"it burns", []policy.Approval{{Owner: "anna", BreakGlass: true}, {Owner: "boris", BreakGlass: true}}, policyText, true, "anna boris"},
		"nobody asks":       {"", []policy.Approval{{Owner: "anna", BreakGlass: true}, {Owner: "boris", BreakGlass: true}}, policyText, false, ""},
		"one twice":         {"it burns", []policy.Approval{{Owner: "anna", BreakGlass: true}, {Owner: "anna", BreakGlass: true}}, policyText, false, ""},
		"another's":         {"it burns", []policy.Approval{{Owner: "anna", BreakGlass: true}, {Owner: "mallory", BreakGlass: true}}, policyText, false, ""},
		"plain approvals":   {"it burns", []policy.Approval{{Owner: "anna"}, {Owner: "boris"}}, policyText, false, ""},
		"no glass to break": {"it burns", []policy.Approval{{Owner: "anna", BreakGlass: true}, {Owner: "boris", BreakGlass: true}}, document(`env == "nowhere"`), false, ""},
	} {
		f := facts()
		f.BreakGlass, f.Release.Approvals = c.reason, c.by
		v := answer(t, c.policy, &f).Verdict
		if v.Admitted != c.admit || strings.Join(v.BrokenBy, " ") != c.because {
			t.Errorf("%s: admitted %v by %v", name, v.Admitted, v.BrokenBy)
		}
		if len(v.Failing()) != 1 {
			t.Errorf("%s: the rule does not fail any more", name)
		}
	}
}

// A rule may apply to deploys alone.
func TestOn(t *testing.T) {
	src := document(`env == "nowhere"`) + "    on: [deploy]\n"
	f := facts()
	if v := answer(t, src, &f).Verdict; v.Admitted {
		t.Error("a deploy is admitted")
	}
	f.Kind = policy.Rollback
	if v := answer(t, src, &f).Verdict; !v.Admitted || v.Rules[0].Outcome != policy.Skipped {
		t.Errorf("a rollback: %+v", v)
	}
}

// The same question has the same answer, and policies are compiled once.
func TestSameAnswer(t *testing.T) {
	j, err := New(time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	f := facts()
	q := policy.Question{Name: "p", Document: []byte(document(`approvedBy(1, "operators") && soaked("staging", duration("30m"))`)), Facts: &f}
	first, err := json.Marshal(j.Answer(q))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(j.Answer(q))
	if err != nil || string(first) != string(again) {
		t.Errorf("two answers:\n%s\n%s (%v)", first, again, err)
	}
	if len(j.compiled) != 1 {
		t.Errorf("%d policies compiled", len(j.compiled))
	}
	for i := range 100 {
		j.Answer(policy.Question{Document: []byte(document(fmt.Sprintf("release.number == %d", i)))})
	}
	if len(j.compiled) > kept {
		t.Errorf("%d policies kept", len(j.compiled))
	}
}

// The example of the documentation is sound.
func TestExample(t *testing.T) {
	src, err := os.ReadFile("../../examples/policy/production.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f := facts()
	if a := answer(t, string(src), &f); len(a.Faults) > 0 {
		t.Error(a.Faults)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(document(`approvedBy(1, "operators") && soaked("staging", duration("30m"))`))
	f.Add(document(`release.components.all(c, c.statements.exists(s, s.owner == "ci" && s.says["builder"] != ""))`))
	f.Add("rules:\n  a:\n    why: x\n    allow: |\n      true &&\n      fals\n")
	f.Add("rules: {a: {why: x, allow: 'during(\"mon\", \"1:00\", \"2:00\", \"UTC\")', on: [deploy]}}\nbreakGlass: {group: x}")
	j, err := New(time.LoadLocation)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src string) {
		fs := facts()
		began := time.Now()
		a := j.Answer(policy.Question{Name: "p", Document: []byte(src), Facts: &fs})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if (a.Verdict == nil) == (len(a.Faults) == 0) {
			t.Errorf("neither or both: %+v", a)
		}
		for _, x := range a.Faults {
			if x.Kind == fault.Internal {
				t.Error(x)
			}
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	j, err := New(time.LoadLocation)
	if err != nil {
		b.Fatal(err)
	}
	f := facts()
	q := policy.Question{Document: []byte(document(`signedBy("release-team") && builtBy("ci") && soaked("staging", duration("30m")) && approvedBy(1, "operators")`)), Facts: &f}
	for b.Loop() {
		if a := j.Answer(q); a.Verdict == nil || !a.Verdict.Admitted {
			b.Fatal(a)
		}
	}
}
