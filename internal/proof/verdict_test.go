package proof

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/judge"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

const law = `groups:
  people: [approver]
  rebuilders: [rebuilder]
rules:
  signed: {why: x, allow: signedBy("release")}
  built: {why: x, allow: builtBy("builder")}
  rebuilt: {why: x, allow: 'rebuiltBy(1, "rebuilders")'}
  approved: {why: x, allow: 'approvedBy(1, "people")', on: [deploy]}
`

// judged is who judges.
func judged(q policy.Question) (policy.Answer, error) {
	j, err := judge.New(time.LoadLocation)
	if err != nil {
		return policy.Answer{}, err
	}
	return j.Answer(q), nil
}

// judgedWorld is one whose release was rebuilt and approved; a policy has not been asked yet.
func judgedWorld(t testing.TB) *world {
	w := newWorld(t, 2, 3, 1)
	w.say(Approval, trust.RoleApprover, w.proof.Current, []byte(`{"environment":"production","reason":"fine"}`))
	for name, c := range w.rel.Environments["production"].Components {
		text, err := policy.RebuildPredicate{Release: w.proof.Current, Component: name, Rebuilt: c.Spec.Artifact, Network: "denied"}.Marshal()
		w.must(err)
		w.say(Rebuild, trust.RoleRebuilder, c.Spec.Artifact, text)
	}
	w.close()
	return w
}

// known is what a server knows of the release.
func (w *world) known() policy.Facts {
	w.t.Helper()
	f := policy.Facts{App: "shop", Env: "production", Kind: policy.Deploy, Now: w.next(), Release: policy.Release{
		Digest: string(w.proof.Current), Number: 1, Created: now.Add(-time.Hour), Statements: []policy.Statement{}, Approvals: []policy.Approval{},
		Components: []policy.Component{}, Stays: []policy.Stay{}, Disbelieved: []string{},
		Vulnerabilities: policy.Vulnerabilities{Unlisted: []string{}, Found: []policy.Vulnerability{}},
	}}
	statements := func(about digest.Digest) []policy.Statement {
		out := []policy.Statement{}
		for _, d := range w.proof.Statements[about] {
			raw := w.proof.Blobs[d]
			k, _ := trust.KindOf(unverified(raw).PredicateType)
			v, err := w.chain.Verify(raw, trust.Want{Kind: k, About: about}, now)
			w.must(err)
			out = append(out, policy.Statement{Kind: k.Name, Owner: v.Owner, Role: string(k.Role), Key: string(v.Key), Digest: string(d), Log: v.Log, Index: int(v.Index), Says: policy.Says(k.Name, v.Statement.Predicate)})
			if k.Name == Approval {
				p, err := policy.ParseApproval(v.Statement.Predicate)
				w.must(err)
				f.Release.Approvals = append(f.Release.Approvals, policy.Approval{Owner: v.Owner, Key: string(v.Key), Groups: []string{}, Index: int(v.Index), Reason: p.Reason})
			}
		}
		return out
	}
	f.Release.Statements = statements(w.proof.Current)
	for _, name := range slices.Sorted(maps.Keys(w.rel.Environments["production"].Components)) {
		d := w.rel.Environments["production"].Components[name].Spec.Artifact
		f.Release.Components = append(f.Release.Components, policy.Component{Name: name, Artifact: string(d), Statements: statements(d)})
	}
	return f
}

// admits has the record tell of the verdict of a policy on facts, both of which are in the
// file, and of another verdict where change says so.
func (w *world) admits(document string, f policy.Facts, change ...func(*record.Entry)) {
	w.t.Helper()
	answer, err := judged(policy.Question{Document: []byte(document), Facts: &f})
	w.must(err)
	if answer.Verdict == nil {
		w.t.Fatal(answer.Faults)
	}
	e := record.Entry{Kind: "admission.refused", App: "shop", Env: "production", Release: w.proof.Current, Data: answer.Verdict.Data()}
	if answer.Verdict.Admitted {
		e.Kind = admitted
	}
	raw, err := f.Marshal()
	w.must(err)
	w.proof.Put(raw)
	w.proof.Put([]byte(document))
	for _, c := range change {
		c(&e)
	}
	w.entry(e)
	w.prove()
}

func check(r Report, name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

// tells that a file is refused of which a check is required.
func tells(t *testing.T, r Report, required, done string) {
	if slices.ContainsFunc(r.Lacking([]string{required}), func(c Check) bool { return c.Name == required }) {
		t.Attr("refused", required+" <- "+done)
	}
}

// The verdict of the record follows from facts and policy that the file has, and the facts
// from the statements; whatever does not is said.
func TestVerdict(t *testing.T) {
	statement := func(f *policy.Facts, kind string) *policy.Statement {
		all := f.Release.Statements
		if i := slices.IndexFunc(all, func(s policy.Statement) bool { return s.Kind == kind }); i >= 0 {
			return &all[i]
		}
		all = f.Release.Components[0].Statements
		return &all[slices.IndexFunc(all, func(s policy.Statement) bool { return s.Kind == kind })]
	}
	for name, c := range map[string]struct {
		facts  func(w *world, f *policy.Facts)
		entry  func(w *world, e *record.Entry)
		file   func(w *world)
		want   Result
		says   string
		refuse string
	}{
		"as it should be":                    {want: Done, says: "it comes to the same in 4 rules; 12 statements of the facts are believed"},
		"the facts are out":                  {file: func(w *world) { delete(w.proof.Blobs, w.named("facts")) }, want: NotDone, says: "the facts of entry"},
		"the policy is out":                  {file: func(w *world) { delete(w.proof.Blobs, w.named("policy")) }, want: NotDone, says: "the policy of entry"},
		"a statement is out":                 {file: func(w *world) { clear(w.proof.Statements) }, want: NotDone, says: "the file does not have"},
		"a component is made up":             {facts: func(_ *world, f *policy.Facts) { f.Release.Components[0].Name = "web7" }, want: Failed, says: `a component "web7"`},
		"a component is left out":            {facts: func(_ *world, f *policy.Facts) { f.Release.Components = f.Release.Components[:1] }, want: Failed, says: "1 components; the release has 2"},
		"another artifact":                   {facts: func(_ *world, f *policy.Facts) { f.Release.Components[0].Artifact = f.Release.Components[1].Artifact }, want: Failed, says: "not the release's"},
		"of another release":                 {facts: func(_ *world, f *policy.Facts) { f.Release.Digest = string(digest.FromString("x")) }, want: Failed, says: "the facts of entry"},
		"of another environment":             {facts: func(_ *world, f *policy.Facts) { f.Env = "staging" }, want: Failed, says: "are of shop/staging"},
		"of another time":                    {facts: func(_ *world, f *policy.Facts) { f.Now = f.Now.Add(time.Second) }, want: Failed, says: "the facts of entry"},
		"somebody else signed":               {facts: func(_ *world, f *policy.Facts) { statement(f, Signature).Owner = "mallory" }, want: Failed, says: "it is not what they say of it"},
		"a builder that says something else": {facts: func(_ *world, f *policy.Facts) { statement(f, Provenance).Says["builder"] = "https://trusted.example" }, want: Failed, says: "it is not what they say of it"},
		"a rebuild that is a signature":      {facts: func(_ *world, f *policy.Facts) { statement(f, Signature).Kind = Rebuild }, want: Failed, says: "the facts name a rebuild", refuse: string(trust.WrongPredicate)},
		"an approval that nobody gave": {facts: func(_ *world, f *policy.Facts) {
			f.Release.Approvals = append(f.Release.Approvals, policy.Approval{Owner: "anna", Key: "x", Groups: []string{}, Index: 3})
		}, want: Failed, says: "an approval by anna that no statement of theirs gives"},
		"an approval that is one to break the glass": {facts: func(_ *world, f *policy.Facts) { f.Release.Approvals[0].BreakGlass = true }, entry: func(_ *world, e *record.Entry) { e.Kind = admitted }, want: Failed, says: "no statement of theirs gives"},
		"a statement of another": {facts: func(w *world, f *policy.Facts) {
			statement(f, Provenance).Digest = string(w.proof.Statements[w.proof.Current][0])
		}, want: NotDone, says: "the file does not have"},
		"admitted although a rule fails": {facts: func(_ *world, f *policy.Facts) { f.Release.Approvals = []policy.Approval{} }, entry: func(_ *world, e *record.Entry) { e.Kind = admitted }, want: Failed, says: "it is admitted: false"},
		"a rule is said to hold":         {facts: func(_ *world, f *policy.Facts) { f.Release.Approvals = []policy.Approval{} }, entry: func(_ *world, e *record.Entry) { e.Data["rule.approved"] = "holds" }, want: Failed, says: `the rule approved comes to "fails", not "holds"`},
		"a rule is left out":             {entry: func(_ *world, e *record.Entry) { delete(e.Data, "rule.approved") }, want: Failed, says: "there are 4 rules, not 3"},
		"a glass that nobody broke":      {entry: func(_ *world, e *record.Entry) { e.Data["breakGlass"] = "anna, boris" }, want: Failed, says: "the glass is broken by"},
		"another policy": {entry: func(w *world, e *record.Entry) {
			e.Data["policy"] = string(w.proof.Put([]byte("rules:\n  any: {why: x, allow: release.number > 7}\n")))
		}, want: Failed, says: "it is admitted: false"},
		"a policy that is none": {entry: func(w *world, e *record.Entry) { e.Data["policy"] = string(w.proof.Put([]byte("hello"))) }, want: Failed, says: "it cannot be judged by the policy of entry"},
		"facts in another form": {entry: func(w *world, e *record.Entry) {
			e.Data["facts"] = string(w.proof.Put(append(w.proof.Blobs[digest.Digest(e.Data["facts"])], ' ')))
		}, want: Failed, says: "not in their one form"},
		"facts that say two things": {entry: func(w *world, e *record.Entry) {
			e.Data["facts"] = string(w.proof.Put(twice(w.proof.Blobs[digest.Digest(e.Data["facts"])])))
		}, want: Failed, says: "not in their one form"},
		"facts that are none": {entry: func(w *world, e *record.Entry) { e.Data["facts"] = string(w.proof.Put([]byte("{}"))) }, want: Failed, says: "neither when, where nor how"},
		"a key that was revoked since": {file: func(w *world) {
			root := w.chain.Latest().Clone()
			root.Revoked = map[trust.KeyID]trust.Revocation{w.public(trust.RoleApprover).ID(): {Reason: "stolen"}}
			w.chain = w.extend(root)
		}, want: Failed, says: "stolen", refuse: string(trust.Revoked)},
	} {
		t.Run(name, func(t *testing.T) {
			w := judgedWorld(t)
			f := w.known()
			if c.facts != nil {
				c.facts(w, &f)
			}
			w.admits(law, f, func(e *record.Entry) {
				if c.entry != nil {
					c.entry(w, e)
				}
			})
			if c.file != nil {
				c.file(w)
			}
			p, err := Parse(w.file())
			w.must(err)
			r := w.verify(p)
			tells(t, r, Verdict, name)
			if got := check(r, Verdict); got.Result != c.want || !strings.Contains(got.What, c.says) || got.Verdict != c.refuse {
				t.Errorf("%+v, want %s with %q", got, c.want, c.says)
			}
		})
	}
}

// twice has a document say who asks twice.
func twice(facts []byte) []byte {
	return []byte(strings.Replace(string(facts), `{"app":"shop"`, `{"app":"other","app":"shop"`, 1))
}

// named is what the last verdict names.
func (w *world) named(what string) digest.Digest {
	w.t.Helper()
	all := w.proof.Verdicts()
	return digest.Digest(all[0].Data[what])
}

// With nobody who judges, or one who cannot, the check is not done; a release that nobody
// judged has no verdict.
func TestNobodyJudges(t *testing.T) {
	w := judgedWorld(t)
	if got := check(w.verify(w.proof), Verdict); got.Result != NotDone || len(w.proof.Verdicts()) > 0 {
		t.Errorf("without a verdict: %+v", got)
	}
	w.admits(law, w.known())
	for name, judge := range map[string]func(policy.Question) (policy.Answer, error){
		"nobody": nil,
		"broken": func(policy.Question) (policy.Answer, error) { return policy.Answer{}, errors.New("it is broken") },
		"silent": func(policy.Question) (policy.Answer, error) { return policy.Answer{}, nil },
	} {
		if got := check(Verifier{Trust: w.chain, Now: now, Seal: sealOf, Judge: judge}.Verify(w.proof), Verdict); got.Result != NotDone {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A summary counts that says that the release passed the policy of the record's verdict, for
// this environment, by a key of the role.
func TestSummary(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *policy.Summary)
		role   trust.Role
		about  func(w *world) digest.Digest
		want   Result
		says   string
	}{
		"as it should be":     {want: Done, says: "by deployer"},
		"of another policy":   {change: func(s *policy.Summary) { s.Policy.Digest["sha256"] = strings.Repeat("ab", 32) }, want: NotDone, says: "it is by the policy sha256:abababab"},
		"for another place":   {change: func(s *policy.Summary) { s.ResourceURI = policy.Resource("shop", "staging") }, want: NotDone, says: `it is for "ashlar:shop/staging"`},
		"that says it failed": {change: func(s *policy.Summary) { s.Result = policy.Failed }, want: NotDone, says: "it says FAILED"},
		"without a time":      {change: func(s *policy.Summary) { s.TimeVerified = time.Time{} }, want: NotDone, says: "it lacks"},
		"by another role":     {role: trust.RoleRelease, want: Failed, says: "does not have the role deployer"},
		"of something else":   {about: func(w *world) digest.Digest { return w.spec(w.proof).Artifact }, want: Failed, says: "is not about"},
	} {
		t.Run(name, func(t *testing.T) {
			w := judgedWorld(t)
			w.admits(law, w.known())
			last := w.proof.Verdicts()[0]
			s := policy.Summarise("ashlar://log.example", w.known(), true, digest.Digest(last.Data["policy"]), policy.SummaryVerdict{Entry: last.Index})
			if c.change != nil {
				c.change(&s)
			}
			if got := check(w.verify(w.proof), Summary); got.Result != NotDone || !strings.Contains(got.What, "no such statement") {
				t.Errorf("without one: %+v", got)
			}
			text, err := json.Marshal(s)
			w.must(err)
			about, role := w.proof.Current, trust.RoleDeployer
			if c.about != nil {
				about = c.about(w)
			}
			if c.role != "" {
				role = c.role
			}
			w.say(Summary, role, about, text)
			w.said[len(w.said)-1].about = w.proof.Current // that is beside what it is kept
			w.close()
			r := w.verify(w.proof)
			tells(t, r, Summary, name)
			if got := check(r, Summary); got.Result != c.want || !strings.Contains(got.What, c.says) {
				t.Errorf("%+v, want %s with %q", got, c.want, c.says)
			}
		})
	}
}

// A rebuild counts that says that this artifact came out of this release.
func TestRebuildIsLookedInto(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *policy.RebuildPredicate)
		says   string
	}{
		"as it should be":         {nil, ""},
		"something else came out": {func(p *policy.RebuildPredicate) { p.Rebuilt = digest.FromString("x") }, "something different came out"},
		"of another release":      {func(p *policy.RebuildPredicate) { p.Release = digest.FromString("x") }, "it is of another release"},
		"of another component":    {func(p *policy.RebuildPredicate) { p.Component = "db" }, "it is of another component"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 3, 1)
			p := policy.RebuildPredicate{Release: w.proof.Current, Component: "web0", Rebuilt: w.spec(w.proof).Artifact}
			if c.change != nil {
				c.change(&p)
			}
			text, err := p.Marshal()
			w.must(err)
			w.say(Rebuild, trust.RoleRebuilder, w.spec(w.proof).Artifact, text)
			w.close()
			want := NotDone
			if c.says == "" {
				want = Done
			}
			r := w.verify(w.proof)
			tells(t, r, Rebuild, name)
			if got := check(r, Rebuild); got.Result != want || !strings.Contains(got.What, c.says) {
				t.Errorf("%+v, want %s with %q", got, want, c.says)
			}
		})
	}
}
