package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// outcome is what of a deploy's JSON the suite looks at.
type outcome struct {
	Outcome          string
	Release          api.ReleaseRef
	Started, Retired int
	TotalSeconds     float64
}

// The main job: deploy, change one line, deploy under load, go back, go forth,
// promote; and everything that tells of it agrees.
func TestMainJob(t *testing.T) {
	h := newHost(t)
	a := h.guest()
	a.edit("ashlar.yaml", "environments:\n", "environments:\n  staging:\n    listen: "+freeAddress(t)+"\n    components: {web: {run: {env: {MARK: staging}}}}\n")

	a.deploy().says("release 1 is live in production at http://"+a.address, "web added, 2 instances started")
	all := a.load(100, "Version")
	first := ids(a.settled())

	a.edit("cmd/guest/main.go", `version = "v1"`, `version = "v2"`)
	a.plansReplacing(first)
	a.ashlar("deploy", "production").failed(5, "nobody is there to agree", "--yes")
	if got := ids(a.settled()); !slices.Equal(got, first) {
		t.Errorf("a plan changed what runs: %v, before %v", got, first)
	}
	a.switches("v1", "v2", func() { a.deployAround("v1", "v2") })

	// Going back needs neither a compiler nor any other program.
	a.switches("v2", "v1", func() {
		cmd := exec.Command(filepath.Join(bin, "ashlar"), "rollback", "production", "-y", "--reason", "v2 is ugly")
		cmd.Env = []string{"PATH=/nonexistent", "HOME=/nonexistent"}
		a.run(cmd)().ok().says("release 2 -> release 1", "release 1 is live", "2 instances replaced")
	})
	a.switches("v1", "v2", func() { a.ashlar("rollback", "production", "2", "-y").ok().says("release 2 is live") })
	a.ashlar("rollback", "production", "2", "-y").ok().says("nothing to change")
	a.ashlar("deploy", "production", "-y").ok().says("nothing to change in production: release 2 is live")

	a.promotes()
	a.unharmed(all)
	a.tells()
}

// plansReplacing expects a plan that replaces the instances, and why.
func (a *app) plansReplacing(instances []string) {
	a.t.Helper()
	var plan struct {
		api.Plan
		Files map[string][]string
	}
	a.ashlar("plan", "production", "--output", "json").into(&plan)
	var replaced []string
	for _, in := range plan.Instances {
		if in.Kind == release.Replaced {
			replaced = append(replaced, in.ID)
		}
	}
	slices.Sort(replaced)
	if !slices.Equal(replaced, instances) || plan.Nothing || plan.From == nil || plan.From.Number != 1 {
		a.t.Errorf("the plan: %+v", plan)
	}
	if files := plan.Files["web"]; !slices.Equal(files, []string{"changed  /usr/bin/web  content"}) {
		a.t.Errorf("the plan's files: %v", files)
	}
	a.ashlar("plan", "production").ok().says("web replaced, 2 instances in place of "+strings.Join(instances, ", "), "changed  /usr/bin/web")
}

// deployAround deploys while a conversation and a download with the old version go
// on: they end when they end, and the deploy after them.
func (a *app) deployAround(old, next string) {
	a.t.Helper()
	talk := a.converse()
	talk.says(old, "hello")
	long := a.download(100, 40*time.Millisecond)
	deploy := a.background("deploy", "production", "--yes", "--output", "json")
	a.await("the old instances to drain", func() error {
		if s := a.status(); s.State.Rollout == nil || s.State.Rollout.Step != rollout.Draining {
			return errNotYet
		}
		return nil
	})
	if got := a.get("/"); !strings.Contains(got, next) {
		a.t.Errorf("while the old instances drain a new request is answered %q", got)
	}
	talk.says(old, "still there?")
	if long.ended() {
		a.t.Error("the download was over before the switch: it shows nothing")
	}
	long.whole(old)
	talk.says(old, "good bye")
	a.ashlar("status", "production").ok().says("release 2", "draining", "of the old instances to end")
	talk.close()
	var out outcome
	deploy().into(&out)
	if out.Outcome != "live" || out.Release.Number != 2 || out.Started != 2 || out.Retired != 2 {
		a.t.Errorf("the outcome: %+v", out)
	}
	if out.TotalSeconds > 15 {
		a.t.Errorf("the deploy took %.1f s: it waited for the end of the drain time", out.TotalSeconds)
	}
}

// promotes deploys what is live in production to staging: the same release, the
// same artifact, nothing built.
func (a *app) promotes() {
	a.t.Helper()
	var out outcome
	r := a.ashlar("deploy", "staging", "-y", "-o", "json")
	r.into(&out)
	live, err := a.client.Release(a.t.Context(), a.name, "2")
	if err != nil {
		a.t.Fatal(err)
	}
	if out.Release != live.ReleaseRef {
		a.t.Errorf("staging got release %v, production has %v", out.Release, live.ReleaseRef)
	}
	tree := func(env string) string { return a.runs(env).Tree.String() }
	if tree("staging") != tree("production") {
		a.t.Error("the same release has other trees in staging and in production")
	}
	address := strings.TrimPrefix(a.ashlar("status", "-o", "json").url("staging"), "http://")
	staging := &app{host: a.host, address: address}
	if got := staging.get("/"); !strings.Contains(got, "version v2 mark staging") {
		a.t.Errorf("staging answers %q", got)
	}
}

// runs is the spec of what is live in an environment.
func (a *app) runs(env string) release.Spec {
	a.t.Helper()
	s, err := a.client.Status(a.t.Context(), a.name, env)
	if err != nil {
		a.t.Fatal(err)
	}
	rel, err := a.client.Release(a.t.Context(), a.name, s.State.Current.Release.String())
	if err != nil {
		a.t.Fatal(err)
	}
	return rel.Release.Environments[env].Components["web"].Spec
}

// url finds the address of an environment in the JSON of `status`.
func (r result) url(env string) string {
	r.a.t.Helper()
	var all []api.Environment
	r.into(&all)
	for _, e := range all {
		if e.Env == env {
			return e.URL
		}
	}
	r.a.t.Fatalf("no environment %s: %s", env, r)
	return ""
}

// tells expects history, record, output and seal to agree on what happened.
func (a *app) tells() {
	a.t.Helper()
	var h api.History
	a.ashlar("history", "-o", "json").into(&h)
	var happened []string
	for _, r := range h.Rollouts {
		happened = append(happened, strings.Join([]string{r.Env, r.Kind, r.From + ">" + r.To, r.Outcome, r.Reason}, " "))
	}
	want := []string{
		"production deploy >1 live ", "production deploy 1>2 live ", "production rollback 2>1 live v2 is ugly",
		"production rollback 1>2 live ", "staging deploy >2 live ",
	}
	slices.Sort(happened)
	slices.Sort(want)
	if !slices.Equal(happened, want) {
		a.t.Errorf("history: %q", happened)
	}
	if len(h.Releases) != 2 || !slices.Equal(h.Releases[1].LiveIn, []string{"production", "staging"}) {
		a.t.Errorf("history: %+v", h.Releases)
	}
	a.ashlar("history").ok().says("production, staging", "v2 is ugly")
	var s api.Status
	a.ashlar("status", "production", "-o", "json").into(&s)
	if s.Number != 2 || len(s.Instances) != 2 || len(s.Router.InFlight) != 2 {
		a.t.Errorf("status: %+v", s)
	}
	a.recordTells()
	a.ashlar("logs", "production", "-n", "5").ok().says("serving v2 0")
	a.ashlar("seal", "verify", "production/web", "staging/web").ok().says("is intact")
	a.ashlar("seal", "ls", "production/web", "/usr/bin").ok().says("/usr/bin/web")
	a.ashlar("doctor").says("yes  server", "yes  runc", "yes  shim", "yes  judge", "yes  go ", "yes  dockerfile builder", "yes  pkcs11-tool")
}

// recordTells expects each line of the log to be an entry, with nothing missing.
func (a *app) recordTells() {
	a.t.Helper()
	kinds := map[string]int{}
	for i, l := range lines(a.ashlar("log", "-o", "json").ok().stdout) {
		var e record.Entry
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			a.t.Fatalf("%v: %s", err, l)
		}
		if e.Index != int64(i) || e.Actor == "" || e.Time.IsZero() {
			a.t.Errorf("entry %d of the record: %s", i, l)
		}
		kinds[e.Kind]++
	}
	for kind, n := range map[string]int{
		"server.started": 1, "router.started": 1, "release.added": 2, "rollout.begun": 5, "release.live": 5, "rollout.live": 5,
		"instance.ordered": 9, "instance.ready": 9, "instance.removed": 6,
	} {
		if kinds[kind] != n {
			a.t.Errorf("the record has %d entries %s, expected %d", kinds[kind], kind, n)
		}
	}
	a.ashlar("log", "verify").ok().says("the record is intact")
	a.ashlar("log", "production", "-n", "3").ok().says("rollout.live")
}

// A byte of an object that was changed on disk is found, by name.
func TestDamage(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	tree := a.runs("production").Tree.Encoded()
	list := a.ashlar("seal", "ls", tree[:12], "/usr/bin/web", "-o", "json").ok()
	var entries []struct{ Digest string }
	list.into(&entries)
	hex := strings.TrimPrefix(entries[0].Digest, "sha256:")
	file := filepath.Join(a.host.dir, "objects", hex[:2], hex[2:])
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, 4096); err != nil {
		t.Fatal(err)
	}
	a.ashlar("seal", "verify", "production/web").failed(5, "/usr/bin/web")
}
