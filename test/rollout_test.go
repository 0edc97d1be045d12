package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/api"
)

// told is a webhook's receiver.
type told struct {
	*httptest.Server
	mu    sync.Mutex
	types []string
	ids   map[string]bool
}

func newTold(t *testing.T) *told {
	r := &told{ids: map[string]bool{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var e struct{ ID, Type string }
		body, err := io.ReadAll(q.Body)
		if err != nil || json.Unmarshal(body, &e) != nil || q.Header.Get("webhook-id") != e.ID {
			t.Errorf("told %q (%v)", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.ids[e.ID] {
			r.types = append(r.types, strings.TrimPrefix(strings.TrimPrefix(e.Type, "dev.cdevents."), "dev.cdeventsx.ashlar-"))
		}
		r.ids[e.ID] = true
	}))
	t.Cleanup(r.Close)
	return r
}

// heard waits until the last event is of a type, and gives them all.
//
// Whether a rollback would work is tried out at any time, and told when that changes: it does not count.
func (r *told) heard(a *app, last string) []string {
	a.t.Helper()
	var all []string
	a.await("the event "+last, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = slices.DeleteFunc(slices.Clone(r.types), func(h string) bool { return strings.HasPrefix(h, "rollback.") })
		if len(all) == 0 || !strings.HasPrefix(all[len(all)-1], last+".0.") {
			return fmt.Errorf("told %v", all)
		}
		return nil
	})
	return all
}

// staged makes an application whose releases take a fifth of the traffic and ask a
// person before they take all.
func (h *host) staged(more string) *app {
	h.t.Helper()
	a := h.guest()
	a.edit("ashlar.yaml", "    replicas: 2\n", "    replicas: 2\n    strategy: {canary: {steps: [{weight: 20, approve: true}, 100]}}\n"+more)
	return a
}

// release deploys another mark and leaves it to the server.
func (a *app) release(old, mark string, flags ...string) result {
	a.t.Helper()
	a.edit("ashlar.yaml", `MARK: "`+old+`"`, `MARK: "`+mark+`"`)
	return a.ashlar(append([]string{"deploy", a.env, "--yes", "--detach"}, flags...)...)
}

// asksFor waits until the rollout in flight waits for an approval.
func (a *app) asksFor(number int) {
	a.t.Helper()
	a.await(fmt.Sprintf("rollout %d to wait for an approval", number), func() error {
		s := a.status()
		if r := s.State.Rollout; r == nil || r.Number != number || !slices.ContainsFunc(s.Waiting, func(w string) bool { return strings.HasPrefix(w, "a person to approve") }) {
			return fmt.Errorf("waits for %v", s.Waiting)
		}
		return nil
	})
}

// TestRolloutByWord is what people say to rollouts, and what they are told.
func TestRolloutByWord(t *testing.T) {
	hook := newTold(t)
	a := newHost(t).staged("    events: [{url: \"" + hook.URL + "/hook\"}]\n")
	a.deploy()
	a.ashlar("why").ok().says("nothing is waited for in production", "release 1 (sha256:")
	a.ashlar("rollout", "status").ok().says("no rollout is in flight in production", "last rollout: 1 (deploy), live")
	a.ashlar("rollout", "watch").failed(3, "no rollout is in flight")
	a.ashlar("rollout", "approve").failed(4, "no rollout is in flight")

	// It stops at a fifth of the traffic, says for whom, and goes on when a person agrees.
	a.release("0", "1").ok().says("rollout 2 is in flight; see it with  ashlar rollout status production")
	a.asksFor(2)
	a.ashlar("why").ok().says("waits for a person to approve 20 % of the traffic", "since:", "ends by: an approval", "command: ashlar rollout approve production")
	a.ashlar("rollout", "status").ok().says("rollout 2 in production: deploy of release 2 over release 1", "step:   shifting", "the new release has 20 % of the traffic",
		"stages: [20 % and an approval], all")
	a.ashlar("status", "production").ok().says("release 1 (sha256:", "waits for a person to approve 20 % of the traffic", "end it with  ashlar rollout approve production")
	a.ashlar("rollout", "resume").failed(4, "is not paused")
	a.ashlar("rollout", "pause", "--reason", "lunch").ok().says("rollout 2 (release 2) is paused; let it go on with  ashlar rollout resume production")
	a.ashlar("rollout", "pause").failed(4, "is paused already, by ")
	a.ashlar("why").ok().says("waits for a person to resume it")
	a.ashlar("rollout", "resume").ok().says("goes on")
	watch := a.background("rollout", "watch")
	a.ashlar("rollout", "approve", "--reason", "looks good").ok().says("is approved")
	watch().ok().says("approved by ", ": looks good", "release 2 is live in production")
	a.ashlar("rollout", "approve").failed(4)

	// One deploy at a time, unless it is said what becomes of the other.
	a.release("1", "2").ok()
	a.asksFor(3)
	a.release("2", "3").failed(4, "rollout 3 (release 3) is in flight", "queue behind it (--queue) or end it (--supersede)")
	a.release("3", "4", "--queue", "--supersede").failed(2, "leave one of them out")
	a.ashlar("deploy", "production", "--yes", "--detach", "--queue").ok().says("waits behind rollout 3, at place 1")
	a.ashlar("rollout", "status").ok().says("queued 1: deploy of release ")
	a.ashlar("rollout", "abort", "--watch", "--reason", "not this one").failed(5, "was put back", "aborted by ", "not this one", "release 2 serves in production, as before")
	a.asksFor(4) // the one that waited
	back := a.ashlar("rollback", "production", "--yes").ok()
	back.says("rollout 4 was put back: release 2 serves in production")
	a.ashlar("quarantine", "ls").ok().says("no release of demo is in quarantine")
	retry := a.background("rollout", "retry", "--watch")
	a.asksFor(5)
	a.ashlar("rollout", "approve", "-o", "json").ok().says(`"approved"`)
	retry().ok().says("is live in production")
	a.oneRelease("4")

	heard := hook.heard(a, "rollout.live")
	for _, want := range []string{"environment.created", "service.deployed", "service.upgraded", "rollout.approved", "rollout.putback", "rollout.paused"} {
		if !slices.ContainsFunc(heard, func(h string) bool { return strings.HasPrefix(h, want+".0.") }) {
			t.Errorf("%s is not among %v", want, heard)
		}
	}
	if heard[0] != "environment.created.0.3.0" || slices.ContainsFunc(heard, func(h string) bool { return strings.HasPrefix(h, "instance.") }) {
		t.Errorf("told %v", heard)
	}
	a.ashlar("log", "verify").ok()
}

// TestQuarantine: what failed is not deployed again before somebody says why.
func TestQuarantine(t *testing.T) {
	a := newHost(t).guest()
	a.edit("ashlar.yaml", "    replicas: 2\n", "    replicas: 1\n")
	a.deploy()
	a.edit("ashlar.yaml", "serves]", "exits]")
	a.ashlar("deploy", "production", "--yes").failed(5, "was put back", "exited with status 3")
	a.ashlar("status", "production").ok().says("in quarantine: release 2, failed in rollout 2: ")
	a.ashlar("deploy", "production", "--yes").failed(5, "release 2 failed in production and is in quarantine", "ashlar quarantine lift 2 --reason")
	var list []api.Quarantined
	a.ashlar("quarantine", "ls", "-o", "json").into(&list)
	if len(list) != 1 || list[0].Number != 2 || list[0].Env != "production" || list[0].Rollout != 2 {
		t.Errorf("in quarantine %+v", list)
	}
	a.ashlar("quarantine", "ls").ok().says("FAILED IN", "exited with status 3")
	a.ashlar("__complete", "quarantine", "lift", "").says("2\tfailed in production")
	a.ashlar("quarantine", "lift", "2").failed(2, "with a reason")
	a.ashlar("quarantine", "lift", "1", "--reason", "x").failed(4, "release 1 is not in quarantine")
	a.ashlar("rollout", "retry").failed(2, "with a reason")
	a.ashlar("quarantine", "lift", "2", "--reason", "the database is back").ok().says("release 2 can be deployed again; it had failed in production")
	a.ashlar("quarantine", "ls").ok().says("no release of demo is in quarantine")
	a.ashlar("deploy", "production", "--yes").failed(5, "was put back")
	a.ashlar("log").ok().says("release.lifted", "the database is back")
}

// TestSupersede: a deploy that ends another one is live in its place, and whoever
// watched the other is told.
func TestSupersede(t *testing.T) {
	a := newHost(t).staged("")
	a.deploy()
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
	first := a.background("deploy", "production", "--yes")
	a.asksFor(2)
	a.release("1", "2", "--supersede").ok()
	first().failed(5, "was put back", "superseded")
	a.asksFor(3)
	a.ashlar("rollout", "approve", "--watch").ok().says("release 3 is live in production")
	a.oneRelease("2")

	// Taking everything down does not wait for a person.
	a.release("2", "3").ok()
	a.asksFor(4)
}
