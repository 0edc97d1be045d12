package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What a failed deploy says: what the instance did, and what serves.
func TestPutBack(t *testing.T) {
	o := outcome{App: "shop", Env: "production", TotalSeconds: 1.5, Failure: &rollout.Failure{
		Instance: "shop-production-web-3", What: "did not become ready within 2s", Probe: "GET /healthz answered 503", Tail: []string{"no database"},
	}}
	r := rollout.Rollout{Number: 2, From: &rollout.Target{Number: 1}, To: rollout.Target{Number: 2}}
	err := putBack(o, r, "shop-production-web-3 did not become ready within 2s")
	want := `shop/production: release 2 was put back after 1.50 s: shop-production-web-3 did not become ready within 2s
  the health check said: GET /healthz answered 503
  its last lines of output:
    | no database
  release 1 serves in production, as before
  fix:   mend the release and deploy it again; all it wrote:  ashlar logs production --instance shop-production-web-3`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if code := fault.Of(err).Kind.ExitCode(); code != 5 {
		t.Errorf("exit status %d", code)
	}
	r.From = nil
	if text := putBack(o, r, "x").Error(); !strings.Contains(text, "nothing is live in production: there was no release before") {
		t.Errorf("a first release: %s", text)
	}
}

// In a pipe a rollout is one line a fact, with the time since it was begun;
// entries of other rollouts are none of its business.
func TestProgressInAPipe(t *testing.T) {
	var b strings.Builder
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	plan := api.Plan{App: "shop", Env: "production", Instances: []api.PlannedInstance{
		{ID: "shop-production-web-1", Component: "web", Kind: release.Replaced},
	}}
	p := &program{out: newPrinter(&b), err: newPrinter(&b)}
	pr := newProgress(p, api.Begun{Rollout: rollout.Rollout{Number: 2, StartedAt: begun}}, plan)
	var err error
	for i, e := range []record.Entry{
		{Kind: "rollout.begun", Reason: "deploy of release 2"},
		{Kind: "instance.failed", Instance: "shop-production-web-1", Rollout: 1},
		{Kind: "instance.ordered", Instance: "shop-production-web-2"},
		{Kind: "instance.ready", Instance: "shop-production-web-2"},
		{Kind: "rollout.switching", Reason: "every new instance is ready"},
		{Kind: "routes.ordered"},
		{Kind: "release.live", Reason: "the router serves the new instances"},
		{Kind: "instance.leaving", Instance: "shop-production-web-1", Reason: "replaced by release 2"},
		{Kind: "instance.removed", Instance: "shop-production-web-1"},
		{Kind: "rollout.live"},
	} {
		e.App, e.Env, e.Index, e.Time = "shop", "production", int64(i), begun.Add(time.Duration(i)*100*time.Millisecond)
		if e.Rollout == 0 {
			e.Rollout = 2
		}
		err = pr.entry(e)
	}
	want := `   0.00 s  rollout 2: deploy of release 2
   0.20 s  web  shop-production-web-2  ordered
   0.30 s  web  shop-production-web-2  ready
   0.40 s  every new instance is ready: the traffic moves
   0.60 s  live: the router serves the new instances
   0.70 s  web  shop-production-web-1  leaving
   0.80 s  web  shop-production-web-1  removed
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err != errEnded || pr.outcome != "live" || pr.started != 1 || pr.retired != 1 || !pr.live.Equal(begun.Add(600*time.Millisecond)) {
		t.Errorf("the outcome: %+v, %v", pr, err)
	}
}

func TestLabel(t *testing.T) {
	for in, want := range map[string]string{
		"My Site": "my-site", "9lives": "lives", "a": "a", "---": "app", "": "app", "x-": "x", strings.Repeat("a", 70): strings.Repeat("a", 63), "Ärger": "rger",
	} {
		if got := label(in); got != want {
			t.Errorf("label(%q) = %q, want %q", in, got, want)
		}
	}
}
