package admission

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/osv"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

var (
	now        = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	production = rollout.Key{App: "site", Env: "production"}
	staging    = rollout.Key{App: "site", Env: "staging"}
	subject    = digest.FromString("release")
	artifact   = digest.FromString("artifact")
)

// world is a store, people with keys, a log and a trust root.
type world struct {
	t       *testing.T
	keys    map[string]crypto.Signer
	chain   *trust.Chain
	log     note.Signer
	logKey  string
	bundles map[digest.Digest][]digest.Digest // by what they are about
	texts   map[digest.Digest][]byte
	states  map[rollout.Key]rollout.State
	entries []record.Entry
	doc     []byte
	db      *osv.Database
	lists   map[digest.Digest][]Package // by artifact
	asked   []policy.Question
	answer  policy.Answer
	fails   error
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, keys: map[string]crypto.Signer{}, bundles: map[digest.Digest][]digest.Digest{}, texts: map[digest.Digest][]byte{},
		states: map[rollout.Key]rollout.State{}, lists: map[digest.Digest][]Package{},
	}
	private, public, err := note.GenerateKey(rand.Reader, "log.example")
	w.must(err)
	w.log, err = note.NewSigner(private)
	w.must(err)
	w.logKey = public
	root := trust.Root{Expires: now.Add(time.Hour), Keys: map[trust.KeyID]trust.Key{}, Roles: map[trust.Role]trust.Holders{}, Logs: map[string]trust.Log{"log.example": {Key: public}}}
	for name, role := range map[string]trust.Role{
		"root": trust.RoleRoot, "release": trust.RoleRelease, "ci": trust.RoleBuilder, "lab": trust.RoleRebuilder, "anna": trust.RoleApprover, "boris": trust.RoleApprover, "mallory": "",
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.must(err)
		w.keys[name] = key
		if role == "" {
			continue
		}
		p, err := trust.NewPublicKey(key.Public())
		w.must(err)
		root.Keys[p.ID()] = trust.NewKey(p, name)
		h := root.Roles[role]
		root.Roles[role] = trust.Holders{KeyIDs: append(h.KeyIDs, p.ID()), Threshold: 1}
	}
	w.chain, err = (*trust.Chain)(nil).Extend(root, []crypto.Signer{w.keys["root"]}, rand.Reader)
	w.must(err)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// says has somebody make a statement, recorded in a log of one entry unless it is not.
func (w *world) says(who, kind string, about digest.Digest, predicate string, recorded bool) digest.Digest {
	w.t.Helper()
	k, _ := trust.KindOf(kind)
	s, err := trust.NewStatement(k, "x", about, []byte(predicate))
	w.must(err)
	b, err := trust.Sign(s, w.keys[who], rand.Reader)
	w.must(err)
	if recorded {
		key, err := trust.NewPublicKey(w.keys[who].Public())
		w.must(err)
		b = w.logged(b, key)
	}
	text, err := b.Marshal()
	w.must(err)
	return w.keep(about, text)
}

// logged has a statement recorded in a log of one entry.
func (w *world) logged(b trust.Bundle, key trust.PublicKey) trust.Bundle {
	w.t.Helper()
	leaf, err := b.LogEntry(key)
	w.must(err)
	_, root, err := record.Append(0, [][]byte{leaf}, nil)
	w.must(err)
	signed, err := note.Sign(&note.Note{Text: record.Checkpoint{Origin: "log.example", Size: 1, Root: root}.Text()}, w.log)
	w.must(err)
	v, err := note.NewVerifier(w.logKey)
	w.must(err)
	b.Log = &trust.Logged{LogID: trust.LogID(v, w.logKey), Body: leaf, Proof: record.InclusionProof{Leaf: leaf, Checkpoint: signed}}
	return b
}

func (w *world) keep(about digest.Digest, text []byte) digest.Digest {
	d := digest.FromBytes(text)
	w.bundles[about] = append(w.bundles[about], d)
	w.texts[d] = text
	return d
}

func (w *world) Policy(context.Context, rollout.Key) ([]byte, error) { return w.doc, nil }
func (w *world) Environments(context.Context) ([]rollout.Key, error) {
	return []rollout.Key{production, staging, {App: "other", Env: "staging"}}, nil
}
func (w *world) State(_ context.Context, env rollout.Key) (rollout.State, int64, error) {
	return w.states[env], 1, nil
}
func (w *world) Entries(_ context.Context, env rollout.Key, from, _ int64) ([]record.Entry, error) {
	var out []record.Entry
	for _, e := range w.entries {
		if e.App == env.App && e.Env == env.Env && e.Index >= from {
			out = append(out, e)
		}
	}
	return out, nil
}

func (w *world) admission() *Admission {
	rel := release.Release{App: "site", Environments: map[string]release.Environment{
		"production": {Components: map[string]release.Component{"web": {Spec: release.Spec{Artifact: artifact}}}},
	}}
	return New(Config{
		Store: w,
		Release: func(context.Context, digest.Digest) (Release, error) {
			return Release{Number: 7, Created: now.Add(-time.Hour), Release: rel}, nil
		},
		Attached: func(about digest.Digest) ([]digest.Digest, error) { return w.bundles[about], nil },
		Bundle:   func(d digest.Digest) ([]byte, error) { return w.texts[d], nil },
		Trust:    func() (*trust.Chain, error) { return w.chain, w.fails },
		Database: func() (*osv.Database, error) { return w.db, nil },
		Packages: func(c release.Component) ([]Package, bool, error) {
			list, ok := w.lists[c.Spec.Artifact]
			return list, ok, nil
		},
		Judge: func(_ context.Context, q policy.Question) (policy.Answer, error) {
			w.asked = append(w.asked, q)
			return w.answer, nil
		},
	})
}

func (w *world) facts() policy.Facts {
	w.t.Helper()
	f, err := w.admission().Gather(w.t.Context(), now, plea())
	w.must(err)
	return f
}

func plea() rollout.Plea {
	return rollout.Plea{Key: production, Release: subject, Number: 7, Kind: rollout.KindDeploy, Actor: "root@host"}
}

// TestGather: true statements are facts; false ones are none, and are named with why.
func TestGather(t *testing.T) {
	w := newWorld(t)
	w.says("release", "signature", subject, "", true)
	w.says("ci", "provenance", artifact, `{"runDetails":{"builder":{"id":"https://ci.example"}}}`, true)
	w.says("lab", "rebuild", artifact, rebuild(subject, "web", artifact), true)
	w.says("anna", "approval", subject, `{"environment":"production","reason":"fine"}`, true)
	for _, bad := range []struct{ who, kind, predicate, why string }{
		{"mallory", "approval", `{"environment":"production"}`, "does not know the key"},
		{"ci", "approval", `{"environment":"production"}`, "does not have the role approver"},
		{"boris", "approval", `{"environment":"staging"}`, "it is for staging"},
		{"boris", "approval", `{"environment":"production","until":"2030-01-01T11:59:59Z"}`, "it ended on 2030-01-01T11:59:59Z"},
		{"boris", "approval", `{"environment":"production","unless":"it rains"}`, "it cannot be read"},
	} {
		w.says(bad.who, bad.kind, subject, bad.predicate, true)
	}
	w.says("boris", "approval", subject, `{"environment":"production"}`, false) // not recorded
	other := w.says("boris", "approval", digest.FromString("another release"), `{"environment":"production"}`, true)
	w.bundles[subject] = append(w.bundles[subject], other)
	damaged := []byte(strings.Replace(string(w.texts[w.bundles[subject][0]]), "payload", "payloda", 1))
	w.keep(subject, damaged)

	f := w.facts()
	if got := f.Release.Statements; len(got) != 5 || got[0].Kind != "signature" || got[0].Owner != "release" || got[0].Role != "release" || got[0].Log != "log.example" || got[0].Index != 0 {
		t.Errorf("statements: %+v", got)
	}
	if got := f.Release.Approvals; len(got) != 1 || got[0].Owner != "anna" || got[0].Reason != "fine" || got[0].BreakGlass {
		t.Errorf("approvals: %+v", got)
	}
	c := f.Release.Components
	if len(c) != 1 || len(c[0].Statements) != 2 || c[0].Statements[0].Says["builder"] != "https://ci.example" || c[0].Statements[1].Role != "rebuilder" {
		t.Errorf("components: %+v", c)
	}
	all := strings.Join(f.Release.Disbelieved, "\n")
	for _, why := range []string{"does not know the key", "does not have the role approver", "it is for staging", "it ended on", "it cannot be read", "no proof that it is in a record", "is not about", "not readable"} {
		if !strings.Contains(all, why) {
			t.Errorf("nothing says %q:\n%s", why, all)
		}
	}
	for _, s := range append(f.Release.Statements, c[0].Statements...) {
		if !slices.Contains(append(w.bundles[subject], w.bundles[artifact]...), digest.Digest(s.Digest)) {
			t.Errorf("the %s does not name its bundle: %q", s.Kind, s.Digest)
		}
	}
	if f.Trust.Version != 1 || f.Release.Number != 7 || f.Kind != "deploy" || !f.Now.Equal(now) {
		t.Errorf("%+v", f)
	}
}

// rebuild is what a rebuilder says.
func rebuild(release digest.Digest, component string, came digest.Digest) string {
	text, err := policy.RebuildPredicate{Release: release, Component: component, Rebuilt: came, Network: "denied"}.Marshal()
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A rebuild counts only if it says that this artifact came out of this component of this
// release, by a key of the role; once for each owner.
func TestRebuilds(t *testing.T) {
	other := digest.FromString("something else")
	for name, c := range map[string]struct{ who, predicate, why string }{
		"it is the same":              {"lab", rebuild(subject, "web", artifact), ""},
		"something else came out":     {"lab", rebuild(subject, "web", other), "something different came out"},
		"it does not say what":        {"lab", rebuild(subject, "web", ""), "does not say what came out"},
		"of another release":          {"lab", rebuild(other, "web", artifact), "of another release"},
		"of another component":        {"lab", rebuild(subject, "db", artifact), "of another component"},
		"nothing":                     {"lab", `{}`, "does not say what came out"},
		"of another shape":            {"lab", `{"result":"same","digest":"` + string(artifact) + `"}`, "it cannot be read"},
		"it says more than it should": {"lab", strings.Replace(rebuild(subject, "web", artifact), "{", `{"but":"only mostly",`, 1), "it cannot be read"},
		"a digest that is a list":     {"lab", strings.Replace(rebuild(subject, "web", artifact), `"rebuilt":"`+string(artifact)+`"`, `"rebuilt":["`+string(artifact)+`"]`, 1), "it cannot be read"},
		"by a key of another role":    {"ci", rebuild(subject, "web", artifact), "does not have the role rebuilder"},
		"by a key that nobody knows":  {"mallory", rebuild(subject, "web", artifact), "does not know the key"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.says(c.who, "rebuild", artifact, c.predicate, true)
			f := w.facts()
			got, all := f.Release.Components[0].Statements, strings.Join(f.Release.Disbelieved, "\n")
			if c.why == "" && (len(got) != 1 || got[0].Says["rebuilt"] != string(artifact)) || c.why != "" && (len(got) > 0 || !strings.Contains(all, c.why)) {
				t.Errorf("believed: %+v; not believed: %s", got, all)
			}
		})
	}
}

// A statement that was pushed without a proof is recorded once, whoever asks how often, if
// nothing else is the matter with it.
func TestPushedWithoutProof(t *testing.T) {
	w := newWorld(t)
	recorded := 0
	fails := errors.New("the record is full")
	recording := func() *Admission {
		a := w.admission()
		a.Record = func(_ context.Context, about digest.Digest, b trust.Bundle, key trust.PublicKey) (digest.Digest, error) {
			if fails != nil {
				return "", fails
			}
			recorded++
			text, err := w.logged(b, key).Marshal()
			w.must(err)
			return w.keep(about, text), nil
		}
		return a
	}
	w.says("lab", "rebuild", artifact, rebuild(subject, "web", artifact), false)
	w.says("ci", "rebuild", artifact, rebuild(subject, "web", artifact), false)
	w.says("mallory", "rebuild", artifact, rebuild(subject, "web", artifact), false)
	a := recording()
	check := func(want int, why ...string) {
		t.Helper()
		f, err := a.Gather(t.Context(), now, plea())
		w.must(err)
		all := strings.Join(f.Release.Disbelieved, "\n")
		if got := f.Release.Components[0].Statements; len(got) != want || want == 1 && (got[0].Owner != "lab" || got[0].Log != "log.example") {
			t.Errorf("believed: %+v", got)
		}
		for _, x := range append(why, "does not have the role rebuilder", "does not know the key") {
			if !strings.Contains(all, x) {
				t.Errorf("nothing says %q:\n%s", x, all)
			}
		}
	}
	check(0, "the record is full")
	fails = nil
	check(1)
	check(1)
	a = recording() // another server
	check(1)
	if recorded != 1 {
		t.Errorf("%d statements were recorded", recorded)
	}
}

// What a verdict was based on is handed on with it, under the digest that the record names.
func TestFactsOfAVerdict(t *testing.T) {
	w := newWorld(t)
	w.doc = []byte("rules: {}")
	a := w.admission()
	f, err := a.Gather(t.Context(), now, plea())
	w.must(err)
	d, err := f.Digest()
	w.must(err)
	w.answer = policy.Answer{Verdict: &policy.Verdict{Admitted: true, Facts: d}}
	got, err := a.Admit(t.Context(), now, plea())
	if err != nil || digest.FromBytes(got.Facts) != d || got.Data["facts"] != string(d) {
		t.Errorf("%+v %v", got, err)
	}
	if again, err := policy.ParseFacts("", got.Facts); err != nil || again.Release.Digest != string(subject) {
		t.Errorf("%+v %v", again, err)
	}
	w.answer.Verdict.Facts = digest.FromString("other facts")
	if got, err := a.Admit(t.Context(), now, plea()); err == nil {
		t.Errorf("a verdict on other facts counts: %+v", got)
	}
}

// With no trust root, with one that is too old, or with too few keys nothing is believed.
func TestGatherDistrust(t *testing.T) {
	w := newWorld(t)
	w.says("release", "signature", subject, "", true)
	w.says("anna", "approval", subject, `{"environment":"production"}`, true)
	chain := w.chain
	check := func(name, why string, f policy.Facts) {
		t.Helper()
		if len(f.Release.Statements) > 0 || len(f.Release.Approvals) > 0 || !strings.Contains(strings.Join(f.Release.Disbelieved, "\n"), why) {
			t.Errorf("%s: %+v", name, f.Release)
		}
	}
	w.chain = nil
	check("no trust root", "there is no trust root", w.facts())
	w.chain = chain
	a := w.admission()
	if f, err := a.Gather(t.Context(), now, plea()); err != nil || len(f.Release.Statements) != 2 {
		t.Fatalf("%+v %v", f.Release, err)
	}
	f, err := a.Gather(t.Context(), now.Add(2*time.Hour), plea()) // what was found out before does not help
	w.must(err)
	check("expired", "expired on", f)
	root := chain.Latest().Clone()
	h := root.Roles[trust.RoleRelease]
	second, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	p, err := trust.NewPublicKey(second.Public())
	w.must(err)
	root.Keys[p.ID()] = trust.NewKey(p, "second")
	h.KeyIDs, h.Threshold = append(h.KeyIDs, p.ID()), 2
	root.Roles[trust.RoleRelease] = h
	w.chain, err = chain.Extend(root, []crypto.Signer{w.keys["root"]}, rand.Reader)
	w.must(err)
	f = w.facts()
	if len(f.Release.Statements) != 1 || f.Release.Statements[0].Kind != "approval" || !strings.Contains(strings.Join(f.Release.Disbelieved, " "), "1 keys of the role release say so; 2 are needed") {
		t.Errorf("one of two: %+v", f.Release)
	}
	w.fails = errors.New("the trust root was rolled back")
	if _, err := w.admission().Gather(t.Context(), now, plea()); err == nil {
		t.Error("a trust root that is refused is no error")
	}
}

// TestStays: where a release was live follows from the record, put back, rolled back
// and taken down.
func TestStays(t *testing.T) {
	w := newWorld(t)
	a, b := digest.FromString("a"), digest.FromString("b")
	at := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	add := func(kind string, r int, d digest.Digest, m int, data map[string]string) {
		w.entries = append(w.entries, record.Entry{Index: int64(len(w.entries)), Kind: kind, App: "site", Env: "staging", Rollout: r, Release: d, Time: at(m), Data: data})
	}
	deploy := map[string]string{"kind": "deploy"}
	add("rollout.begun", 1, a, 0, deploy)
	add("release.live", 1, a, 1, nil)
	add("rollout.begun", 2, b, 10, deploy)
	add("rollout.reverting", 2, b, 11, nil) // before the switch: a goes on
	add("rollout.begun", 3, b, 20, deploy)
	add("release.live", 3, b, 21, nil)
	adm := w.admission()
	show := func(d digest.Digest) string {
		t.Helper()
		stays, err := adm.staysOf(t.Context(), "site", d)
		w.must(err)
		var out []string
		for _, s := range stays {
			till := "now"
			if !s.Till.IsZero() {
				till = fmt.Sprint(int(s.Till.Sub(now).Minutes()))
			}
			out = append(out, fmt.Sprintf("%s %d-%s %v", s.Env, int(s.Since.Sub(now).Minutes()), till, s.Proven))
		}
		return strings.Join(out, ", ")
	}
	want := func(d digest.Digest, text string) {
		t.Helper()
		if diff := cmp.Diff(text, show(d)); diff != "" {
			t.Error(diff)
		}
	}
	want(a, "staging 1-21 false")
	want(b, "staging 21-now false")
	add("rollout.reverting", 3, b, 22, nil) // after the switch: a is back
	want(a, "staging 1-21 false, staging 22-now false")
	want(b, "staging 21-22 false")
	w.states[staging] = rollout.State{KnownGood: []digest.Digest{a}}
	add("rollout.begun", 4, a, 30, map[string]string{"kind": "down"})
	add("release.live", 4, a, 31, nil)
	want(a, "staging 1-21 true, staging 22-31 true")
	add("rollout.begun", 5, a, 40, deploy)
	add("release.live", 5, a, 41, nil)
	want(a, "staging 1-21 true, staging 22-31 true, staging 41-now true")
}

// TestVulnerabilities: packages are looked up, what a VEX statement excuses is excused,
// and a component whose packages are not known is named.
func TestVulnerabilities(t *testing.T) {
	w := newWorld(t)
	var err error
	w.db, err = osv.Parse("db", []byte(`[{"id":"A","aliases":["CVE-1"],"modified":"2029-12-31T00:00:00Z","published":"2029-12-01T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3"}]}],"ecosystem_specific":{"urgency":"high"}}]},
	{"id":"B","modified":"2029-12-30T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"versions":["2"]}]}]`))
	w.must(err)
	if f := w.facts().Release; len(f.Vulnerabilities.Found) > 0 || strings.Join(f.Vulnerabilities.Unlisted, "") != "web" || f.Ledger || f.Components[0].Listed {
		t.Errorf("without a list: %+v", f.Vulnerabilities)
	}
	w.lists[artifact] = []Package{{Name: osv.Name{Ecosystem: "Debian:12", Package: "openssl"}, Version: "2", PURL: "pkg:deb/debian/openssl"}}
	w.says("release", "vex", artifact, `{"statements":[{"vulnerability":{"name":"CVE-1"},"status":"not_affected","justification":"vulnerable_code_not_present"},{"vulnerability":{"name":"B"},"status":"under_investigation"}]}`, true)
	w.says("anna", "vex", artifact, `{"statements":[{"vulnerability":{"name":"B"},"status":"not_affected"}]}`, true) // not hers to say
	v := w.facts().Release.Vulnerabilities
	if len(v.Found) != 2 || v.Found[0].Excused != "not_affected: vulnerable_code_not_present (release)" || v.Found[0].Severity != "high" || v.Found[0].Fixed != "3" || v.Found[1].Excused != "" || v.Packages != 1 || len(v.Unlisted) > 0 {
		t.Errorf("%+v", v)
	}
	if v.Database != string(w.db.Digest) || !v.Date.Equal(time.Date(2029, 12, 31, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("database %s of %s", v.Database, v.Date)
	}
}

// TestAdmit: without a policy nothing is asked; with one the verdict is handed on, and a
// policy that is not sound is an error.
func TestAdmit(t *testing.T) {
	w := newWorld(t)
	a := w.admission()
	if got, err := a.Admit(t.Context(), now, plea()); err != nil || !got.Admitted || got.Policy != "" || len(w.asked) > 0 {
		t.Errorf("without a policy: %+v %v", got, err)
	}
	w.doc = []byte("rules")
	d, err := w.facts().Digest()
	w.must(err)
	w.answer = policy.Answer{Verdict: &policy.Verdict{Policy: "sha256:1", Facts: d, Rules: []policy.Judged{{Name: "signed", Why: "w", Outcome: policy.Fails, Looked: []policy.Looked{{Came: "nobody signed it"}}, Mend: []string{"sign it"}}}}}
	got, err := a.Admit(t.Context(), now, plea())
	if err != nil || got.Admitted || got.Why != "signed: nobody signed it" || got.Policy != "sha256:1" || strings.Join(got.Details, "|") != "rule signed: w|  nobody signed it|  needed: sign it" {
		t.Errorf("refused: %+v %v", got, err)
	}
	w.answer = policy.Answer{}
	if got, err := a.Admit(t.Context(), now, plea()); err == nil {
		t.Errorf("without a verdict: %+v", got)
	}
}
