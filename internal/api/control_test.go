package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// asking makes a shop whose rollouts ask a person before the traffic moves, with a hook.
func asking(t *testing.T, command string) []byte {
	t.Helper()
	rel, err := release.Parse(shop(t, command, 1))
	if err != nil {
		t.Fatal(err)
	}
	env := rel.Environments["production"]
	env.Rollout.Approve = true
	web := env.Components["web"]
	web.Hooks = []release.Hook{{When: release.HookRollback, Command: []string{"/undo"}, TimeoutMS: 60_000}}
	env.Components["web"] = web
	rel.Environments["production"] = env
	doc, err := rel.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func (w *world) begin(t *testing.T, doc []byte, q api.BeginRequest) (api.Begun, error) {
	t.Helper()
	added, err := w.AddRelease(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	q.App, q.Env, q.Release = "shop", "production", string(added.Digest)
	return w.Deploy(t.Context(), q)
}

// waits follows the record until the rollout in flight asks for a person.
func (w *world) waits(t *testing.T) []rollout.Cause {
	t.Helper()
	for range 1000 {
		causes, err := w.Why(t.Context(), "shop", "production")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range causes {
			if strings.Contains(c.Command, "approve") {
				return causes
			}
		}
	}
	t.Fatal("nobody is asked")
	return nil
}

func wantFault(t *testing.T, err error, kind fault.Kind, words string) {
	t.Helper()
	if f := fault.Of(err); f == nil || f.Kind != kind || !strings.Contains(f.What, words) {
		t.Errorf("%v; want %s with %q", err, kind, words)
	}
}

func TestControl(t *testing.T) {
	w := newWorld(t)
	if causes, err := w.Why(t.Context(), "shop", "production"); err == nil {
		t.Errorf("nothing was deployed, and why is %v", causes)
	}
	w.roll(t, shop(t, "/web", 1))
	_, err := w.InFlight(t.Context(), "shop", "production")
	wantFault(t, err, fault.NotFound, "no rollout is in flight")
	plan, err := w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(asking(t, "/web2"))})
	if err != nil || !plan.Rollout.Approve || len(plan.Hooks) != 1 || plan.Hooks[0].Component != "web" || plan.Hooks[0].When != release.HookRollback {
		t.Errorf("planned %+v with the hooks %v (%v)", plan.Rollout, plan.Hooks, err)
	}
	begun, err := w.begin(t, asking(t, "/web2"), api.BeginRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w.waits(t)
	seen, err := w.InFlight(t.Context(), "shop", "production")
	if err != nil || seen.Rollout.Number != begun.Rollout.Number || seen.Index < begun.Index {
		t.Errorf("in flight %+v (%v)", seen, err)
	}

	// What is asked for meanwhile is refused or waits, as it says.
	_, err = w.begin(t, shop(t, "/web3", 1), api.BeginRequest{})
	wantFault(t, err, fault.Conflict, "is in flight")
	queued, err := w.begin(t, shop(t, "/web3", 1), api.BeginRequest{Queue: true, Reason: "after that"})
	if err != nil || queued.Queued != 1 || queued.Rollout.Number != begun.Rollout.Number {
		t.Errorf("queued %+v (%v)", queued, err)
	}
	other, err := w.begin(t, shop(t, "/web5", 1), api.BeginRequest{Queue: true})
	if err != nil || other.Queued != 2 {
		t.Errorf("queued %+v (%v)", other, err)
	}
	withdraw := api.WithdrawRequest{App: "shop", Env: "production", Reason: "not today"}
	_, err = w.Withdraw(t.Context(), withdraw)
	wantFault(t, err, fault.Conflict, "2 rollouts wait in production: say which")
	why, err := w.Why(t.Context(), "shop", "production")
	if n := len(why); err != nil || why[n-1].Command != "ashlar rollout withdraw production --release 4" {
		t.Errorf("%+v, %v", why, err)
	}
	withdraw.Release = "4"
	if q, err := w.Withdraw(t.Context(), withdraw); err != nil || q.To.Number != 4 {
		t.Errorf("withdrawn %+v (%v)", q, err)
	}
	_, err = w.Withdraw(t.Context(), withdraw)
	wantFault(t, err, fault.Conflict, "no rollout to that release waits")
	_, err = w.begin(t, shop(t, "/web4", 1), api.BeginRequest{Force: true})
	wantFault(t, err, fault.Invalid, "says why")

	say := func(verb, reason string) error {
		_, err := w.Control(t.Context(), api.ControlRequest{App: "shop", Env: "production", Verb: verb, Reason: reason})
		return err
	}
	wantFault(t, say("dance", ""), fault.Invalid, "dance")
	wantFault(t, say("resume", ""), fault.Conflict, "is not paused")
	if err := say("pause", "lunch"); err != nil {
		t.Error(err)
	}
	wantFault(t, say("pause", ""), fault.Conflict, "is paused already, by "+me(t))
	if err := say("resume", ""); err != nil {
		t.Error(err)
	}
	if err := say("approve", "good"); err != nil {
		t.Error(err)
	}
	entries := w.until(t, begun)
	var said []string
	for _, e := range entries {
		if by := e.Data["by"]; by != "" {
			said = append(said, e.Kind+" by "+by+" "+e.Reason)
		}
	}
	want := []string{"rollout.withdrawn by " + me(t) + " withdrawn by " + me(t) + ": not today", "rollout.paused by " + me(t) + " lunch", "rollout.unpaused by " + me(t) + " ", "rollout.approved by " + me(t) + " good"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
}

func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	w.roll(t, shop(t, "/web", 1))
	w.roll(t, shop(t, "/bad", 1))
	list, err := w.Quarantine(t.Context(), "shop")
	if err != nil || len(list) != 1 || list[0].Number != 2 || list[0].Env != "production" || list[0].Rollout != 2 || !strings.Contains(list[0].Why, "status 3") {
		t.Errorf("in quarantine %+v (%v)", list, err)
	}
	status, err := w.Status(t.Context(), "shop", "production")
	if err != nil || status.Releases[list[0].Digest] != 2 {
		t.Errorf("the status does not know the number of %s: %v (%v)", list[0].Digest, status.Releases, err)
	}
	_, err = w.begin(t, shop(t, "/bad", 1), api.BeginRequest{})
	wantFault(t, err, fault.Refused, "is in quarantine")
	if !strings.Contains(fault.Of(err).Fix, "ashlar quarantine lift 2 --reason") {
		t.Errorf("mended by %q", fault.Of(err).Fix)
	}
	_, err = w.Lift(t.Context(), api.LiftRequest{App: "shop", Release: "2"})
	wantFault(t, err, fault.Invalid, "with a reason")
	_, err = w.Lift(t.Context(), api.LiftRequest{App: "shop", Release: "1", Reason: "x"})
	wantFault(t, err, fault.Conflict, "release 1 is not in quarantine")
	lifted, err := w.Lift(t.Context(), api.LiftRequest{App: "shop", Release: "2", Reason: "mended outside"})
	if err != nil || lifted.Number != 2 || cmp.Diff(lifted.Envs, []string{"production"}) != "" {
		t.Errorf("lifted %+v (%v)", lifted, err)
	}
	if list, err := w.Quarantine(t.Context(), "shop"); err != nil || len(list) != 0 {
		t.Errorf("still in quarantine: %v (%v)", list, err)
	}
}
