package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
)

const promotionPolicy = `groups:
  operators: [anna, boris, carla]
rules:
  signed:
    why: Only what the release team meant to be run runs here.
    allow: signedBy("release")
  soaked:
    why: What fails after a while fails in staging.
    on: [deploy]
    allow: soaked("staging", duration("SOAK"))
  approved:
    why: Two people looked at it.
    on: [deploy]
    allow: approvedBy(2, "operators")
breakGlass: {group: operators, count: 2}
`

// promoted is a guest with staging beside production, keys of people, a trust root that
// the server has, and a policy of production.
func (h *host) promoted(soak string) *app {
	h.t.Helper()
	a := h.guest()
	a.edit("ashlar.yaml", "environments:\n", "environments:\n  staging:\n    listen: "+freeAddress(h.t)+"\n    replicas: 1\n    bake: 1s\n")
	h.t.Setenv("ASHLAR_KEYS", filepath.Join(a.dir, "keys"))
	if err := os.Mkdir(filepath.Join(a.dir, "keys"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for _, name := range []string{"root", "keys/release", "anna", "boris", "carla", "mallory"} {
		a.ashlar("key", "new", "--no-passphrase", name).ok()
	}
	a.trusts("init", "trust.json", "--add", "root=root", "--add", "release=keys/release", "--add", "approver=anna", "--add", "approver=boris", "--add", "approver=carla")
	a.write("policy.yaml", strings.ReplaceAll(promotionPolicy, "SOAK", soak))
	return a
}

// trusts makes a version of the trust root and installs it.
func (a *app) trusts(args ...string) {
	a.t.Helper()
	key := strings.TrimSpace(a.ashlar("log", "key").ok().stdout)
	a.ashlar(append([]string{"trust"}, append(args, "--sign", "root.key", "--log", key)...)...).ok()
	a.ashlar("trust", "install", "trust.json").ok()
}

// entry finds the last entry of a kind in the record.
func (a *app) entry(kind string) record.Entry {
	a.t.Helper()
	var last record.Entry
	for _, e := range a.entries(0) {
		if e.Kind == kind {
			last = e
		}
	}
	if last.Kind == "" {
		a.t.Fatalf("the record has no %s", kind)
	}
	return last
}

// proven has the record prove an entry, and checks that offline.
func (a *app) proven(e record.Entry) {
	a.t.Helper()
	proof := a.ashlar("log", "prove", strconv.FormatInt(e.Index, 10)).ok().stdout
	a.write("proof", proof)
	a.ashlar("log", "check", "proof").ok().says(e.Kind)
}

// TestPromotion: production takes what soaked in staging and two people approved, and
// nothing else; the record tells each step, with proofs (show 5).
func TestPromotion(t *testing.T) {
	a := newHost(t).promoted("3s")
	none := a.ashlar("policy", "show", "production").ok()
	none.shows(none.stderr, "has no policy: every release is admitted")
	a.ashlar("policy", "set", "production", "policy.yaml", "--reason", "we want to know").ok().says("production has the policy sha256:")
	a.ashlar("policy", "set", "production", "policy.yaml").ok().says("has this policy already")
	a.ashlar("deploy", "staging", "-y").ok()

	refused := a.ashlar("promote", "staging", "production", "-y").failed(5, "the policy of production does not admit release 1",
		"rule approved: Two people looked at it.", "approved by 0 of 2 in operators", "ashlar approve 1 --env production", "ashlar policy test production 1")
	if strings.Contains(refused.stderr, "rule signed") {
		t.Errorf("it was signed: %s", refused)
	}
	a.proven(a.entry("admission.refused"))
	a.ashlar("policy", "test", "production", "1").failed(5, "approved").says("holds  signed", "release 1 is signed by release", "fails  approved", "- approved by 0 of 2", "it would hold with")

	// Approvals count once for each person of the group, for this environment, by a key that
	// the trust root has as an approver's.
	a.ashlar("approve", "1", "--env", "production", "--key", "anna.key", "--reason", "looks good").ok().says("release 1 approved for demo/production: entry ")
	a.ashlar("approve", "1", "--env", "production", "--key", "anna.key").ok()
	a.ashlar("approve", "1", "--env", "staging", "--key", "boris.key").ok()
	a.ashlar("approve", "1", "--env", "production", "--key", "mallory.key").ok()
	a.ashlar("approve", "1", "--env", "production", "--key", "keys/release.key").ok()
	a.ashlar("policy", "test", "production", "1").failed(5, "approved").says("approved by 1 of 2 in operators: anna (entry ",
		"it is for staging", "does not know the key", "does not have the role approver")
	a.ashlar("approve", "1", "--env", "production", "--key", "boris.key").ok()

	a.await("the release to have soaked", func() error { return a.ashlar("policy", "test", "production", "1").problem() })
	a.ashlar("promote", "staging", "production", "-y").ok().says("release 1 is live in production")
	admitted := a.entry("admission.admitted")
	if admitted.Data["rule.soaked"] != "holds" || admitted.Data["rule.approved"] != "holds" || !strings.HasPrefix(admitted.Data["policy"], "sha256:") ||
		!strings.HasPrefix(admitted.Data["facts"], "sha256:") || !strings.Contains(admitted.Data["fact.03"], "anna (entry ") {
		t.Errorf("the verdict in the record: %+v", admitted)
	}
	for _, kind := range []string{"policy.set", "trust.installed", "statement.logged", "release.live", "admission.admitted"} {
		a.proven(a.entry(kind))
	}
	if got := a.get("/"); !strings.Contains(got, "mark 0") {
		t.Errorf("production answers %q", got)
	}
	a.ashlar("log", "verify").ok()
}

// TestPolicyReplaced: a policy that is replaced while a rollout lays puts it back; what is
// live goes on whatever the policy says, is replaced when it fails, and a rollout that is
// in flight is put back to it by a rollback.
func TestPolicyReplaced(t *testing.T) {
	a := newHost(t).promoted("0s")
	a.write("open.yaml", "rules:\n  any:\n    why: Anything goes.\n    allow: release.number > 0\n")
	a.write("closed.yaml", "rules:\n  none:\n    why: Nothing goes.\n    allow: release.number > 99\n")
	a.ashlar("policy", "set", "production", "open.yaml").ok()
	a.deploy()
	was := ids(a.status())

	a.edit("ashlar.yaml", "serves]", "sick]") // it never gets ready
	a.edit("ashlar.yaml", "start: 10s", "start: 60s")
	ended := a.background("deploy", "production", "-y")
	a.await("the new instances to be started", func() error { return missing(len(a.status().Instances) >= 4, "4 instances") })
	a.ashlar("policy", "set", "production", "closed.yaml").ok()
	ended().failed(5, "release 2 was put back", "the policy no longer admits it: none: release.number > 99 is false")
	if now := ids(a.settled()); strings.Join(now, " ") != strings.Join(was, " ") {
		t.Errorf("instances %v became %v", was, now)
	}
	if len(a.status().State.Quarantine) > 0 {
		t.Error("a release is in quarantine for what a policy says")
	}
	a.ashlar("deploy", "production", "-y").failed(5, "rule none: Nothing goes.", "release.number = 2")
	a.edit("ashlar.yaml", "sick]", "serves]")

	// What is live is replaced when it ends, whatever the policy says of it.
	for _, pid := range a.pids(was[0]) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	a.await("another instance in its place", func() error {
		s := a.status()
		return missing(len(s.Instances) == 2 && !strings.Contains(strings.Join(ids(s), " "), was[0]) && len(s.Waiting) == 0, "two instances, "+was[0]+" not among them")
	})
	a.ashlar("policy", "remove", "production").failed(2, "with a reason")
	a.ashlar("policy", "remove", "production", "--reason", "it was a bad day").ok()
	a.write("policy.yaml", "rules:\n  a:\n    why: x\n    allow: relase.number > 1\n  b:\n    whi: x\n    allow: true\n")
	a.ashlar("policy", "set", "production", "policy.yaml").failed(2, `policy.yaml:6:5: unknown key "whi"`, "write  why:")
}

// TestBreakGlass: two approvers and a reason let a release in that a rule keeps out, the
// record and the status say so, and the approvals are worth nothing otherwise.
func TestBreakGlass(t *testing.T) {
	a := newHost(t).promoted("1h")
	a.ashlar("policy", "set", "production", "policy.yaml").ok()
	a.ashlar("deploy", "production", "-y").failed(5, "rule soaked")
	a.ashlar("approve", "1", "--env", "production", "--key", "anna.key", "--break-glass").failed(2, "says why")
	a.ashlar("approve", "1", "--env", "production", "--key", "anna.key", "--break-glass", "--reason", "it burns").ok().says("in spite of the policy")
	a.ashlar("deploy", "production", "-y", "--break-glass", "--reason", "it burns").failed(5, "rule soaked")
	a.ashlar("approve", "1", "--env", "production", "--key", "boris.key", "--break-glass", "--reason", "it burns").ok()
	a.ashlar("deploy", "production", "-y").failed(5, "approved by 0 of 2")
	a.ashlar("deploy", "production", "-y", "--break-glass").failed(2, "says why")
	a.ashlar("deploy", "production", "-y", "--break-glass", "--reason", "it burns").ok()
	e := a.entry("admission.admitted")
	if e.Data["breakGlass"] != "anna, boris" || e.Data["rule.soaked"] != "fails" || !strings.Contains(e.Reason, "the glass was broken by anna, boris: it burns") {
		t.Errorf("the record says %+v", e)
	}
	a.proven(e)
	a.ashlar("status", "production").ok().says("the glass was broken by anna, boris: it burns")

	// An approval ends, and a key that is revoked approves nothing.
	a.deployedRefused()
}

// deployedRefused approves a next release in ways that do not count.
func (a *app) deployedRefused() {
	a.t.Helper()
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
	a.ashlar("deploy", "production", "-y").failed(5, "rule soaked")
	a.ashlar("approve", "2", "--env", "production", "--key", "anna.key", "--break-glass", "--reason", "again", "--valid", "1s").ok()
	a.ashlar("approve", "2", "--env", "production", "--key", "boris.key", "--break-glass", "--reason", "again").ok()
	a.await("an approval to end", func() error {
		r := a.ashlar("policy", "test", "production", "2", "--break-glass", "again")
		return missing(r.code == 5 && strings.Contains(r.stdout, "it ended on"), r.String())
	})
	a.trusts("rotate", "trust.json", "--revoke", "boris", "--reason", "the laptop was stolen")
	a.ashlar("approve", "2", "--env", "production", "--key", "anna.key", "--break-glass", "--reason", "again").ok()
	a.ashlar("deploy", "production", "-y", "--break-glass", "--reason", "again").failed(5, "rule soaked")
	a.ashlar("policy", "test", "production", "2").failed(5, "soaked").says("the laptop was stolen")
}

// missing says what is not there yet.
func missing(there bool, what string) error {
	if there {
		return nil
	}
	return errors.New("not yet: " + what)
}

// TestPolicyOffline: a policy is tried out without a server, with facts of one.
func TestPolicyOffline(t *testing.T) {
	a := newHost(t).promoted("30m")
	a.ashlar("deploy", "staging", "-y").ok()
	facts := a.ashlar("policy", "facts", "production", "1").ok().stdout
	var seen struct{ Release struct{ Stays []any } }
	if err := json.Unmarshal([]byte(facts), &seen); err != nil || len(seen.Release.Stays) != 1 {
		t.Errorf("facts: %v %s", err, facts)
	}
	a.write("facts.json", facts)
	a.stop()
	a.ashlar("policy", "test", "--policy", "policy.yaml", "--facts", "facts.json").failed(5, "soaked, approved").says("fails  soaked", "of 30m0s")
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	a.ashlar("policy", "test", "--policy", "policy.yaml", "--facts", "facts.json", "--at", later).failed(5, "release 1: approved").says("holds  soaked")
	a.ashlar("policy", "test", "--policy", "nowhere.yaml", "--facts", "facts.json").failed(3, "no such file")
	a.start()
}

// TestVulnerabilities: nothing is said without a database, which is named with its date;
// what it has to say of the standard library that a program was built with keeps it out.
func TestVulnerabilities(t *testing.T) {
	a := newHost(t).guest()
	a.write("policy.yaml", "rules:\n  no-holes:\n    why: What could be mended is mended.\n    allow: noFixable('high', days(7))\n")
	a.ashlar("policy", "set", "production", "policy.yaml").ok()
	a.ashlar("deploy", "production", "-y").failed(5, "it could not be evaluated", "the server has no database of vulnerabilities")
	osv := func(name, fixed string) string {
		return `{"id":"` + name + `","modified":"2026-01-02T00:00:00Z","published":"2026-01-01T00:00:00Z","database_specific":{"severity":"HIGH"},` +
			`"affected":[{"package":{"ecosystem":"Go","name":"stdlib"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"` + fixed + `"}]}]}]}`
	}
	a.write("bad.json", "[{}]")
	a.ashlar("policy", "database", "bad.json").failed(2, "record 1 has no id")
	a.ashlar("policy", "database", "nowhere.json").failed(3, "no such file")
	a.write("osv.json", "["+osv("OLD", "1.0.0")+","+osv("NEW", "99.0.0")+"]")
	a.ashlar("policy", "database", "osv.json").ok().says("2 records, the newest of 2026-01-02")
	a.ashlar("deploy", "production", "-y").failed(5, "1 fixable of severity high or worse", "of 2026-01-02 in", "NEW in pkg:golang/stdlib 1.")
	a.write("osv.json", osv("OLD", "1.0.0"))
	a.ashlar("policy", "database", "osv.json").ok()
	a.deploy()
	e := a.entry("admission.admitted")
	if !strings.Contains(e.Data["fact.01"], "by database sha256:") {
		t.Errorf("the record does not name the database: %+v", e)
	}
	a.stop()
	a.start()
	a.ashlar("policy", "test", "production").ok().says("0 fixable of severity high")
}
