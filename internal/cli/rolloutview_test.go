package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// canaryStatus is an environment in the second stage of a canary, with most of what can
// be told.
func canaryStatus() api.Status {
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	before := digest.FromString("before")
	from := rollout.Target{Release: a, Number: 6, Components: []rollout.Component{{Name: "web", Spec: a, Route: &rollout.Route{}}}}
	to := rollout.Target{Release: b, Number: 7, Strategy: rollout.Strategy{Kind: rollout.Canary, Stages: []rollout.Stage{
		{Weight: 5, Pause: time.Minute}, {Weight: 25, Approve: true}, {Weight: 50, Pause: 10 * time.Minute, Approve: true},
	}}, Components: []rollout.Component{{Name: "web", Spec: b, Route: &rollout.Route{}}}}
	r := &rollout.Rollout{
		Number: 9, Kind: rollout.KindDeploy, From: &from, To: to, Step: rollout.Shifting, StepAt: ago(30 * time.Second), Stage: 1, Share: 25,
		Actor: "dana@host", Reason: "a new version", StartedAt: ago(3 * time.Minute),
		Hooks: map[string]rollout.HookRun{
			"web/before/0": {Instance: "shop-production-web-7", StartedAt: ago(3 * time.Minute), EndedAt: ago(3*time.Minute - 800*time.Millisecond)},
		},
		Rolls: map[string]rollout.Roll{"redis": {New: 1, Old: 2}},
	}
	var s api.Status
	s.Now, s.Number, s.URL = noon, 6, "http://127.0.0.1:8080"
	s.Releases = map[digest.Digest]int{before: 5, a: 6, b: 7, c: 4}
	s.State = rollout.State{
		App: "shop", Env: "production", Current: &from, Rollout: r, KnownGood: []digest.Digest{before, a},
		Queue:      []rollout.Queued{{Request: rollout.Request{Kind: rollout.KindDeploy, To: rollout.Target{Number: 8}, Actor: "eve@host", Reason: "another"}, At: ago(time.Minute + time.Second)}},
		Quarantine: map[digest.Digest]rollout.Quarantined{c: {Rollout: 5, Why: "web-3 exited with status 3"}},
		LastResult: &rollout.Result{Number: 8, Kind: rollout.KindDeploy, Outcome: rollout.Live, StartedAt: ago(time.Hour), SwitchAt: ago(time.Hour - 200*time.Millisecond), EndedAt: ago(50 * time.Minute)},
		Readiness:  &rollout.Readiness{Release: before, Since: ago(4 * time.Minute), Why: []string{"web: 3 objects are damaged", "the secret key has no version 2"}},
		Warm:       &rollout.Warm{Target: rollout.Target{Number: 5}, Till: noon.Add(90 * time.Second)},
		Jobs:       map[string]rollout.Job{"report": {Next: noon.Add(time.Hour), Last: &rollout.HookRun{StartedAt: ago(23 * time.Hour), EndedAt: ago(23*time.Hour - time.Second), Failure: &rollout.Failure{What: "exited with status 1"}}}},
		Instances: []rollout.Order{
			{Instance: rollout.Instance{ID: "shop-production-web-5", Component: "web", Release: a}},
			{Instance: rollout.Instance{ID: "shop-production-report-8", Component: "report", Release: a, Hook: "schedule"}},
		},
	}
	s.Instances = []rollout.Observed{{ID: "shop-production-web-5", Component: "web", Phase: rollout.Ready, StartedAt: ago(time.Hour)}}
	s.Router = rollout.RouterStatus{
		InFlight: map[string]int{"shop-production-web-5": 3},
		Kinds:    map[string]rollout.Flight{"shop-production-web-5": {Requests: 2, WebSockets: 1}},
		Cut:      map[string]rollout.Flight{"shop-production-web-2": {Streams: 2, TCP: 1}},
	}
	s.Why = []rollout.Cause{
		{What: "a person to approve 25 % of the traffic", Since: ago(30 * time.Second), Unblock: "an approval", Command: "ashlar rollout approve production"},
		{What: "enough evidence: 40 of 100 requests", Since: ago(30 * time.Second), Till: noon.Add(5 * time.Minute), Unblock: "more requests"},
	}
	s.Problems = []string{"the webhook https://hooks.example.test/ has not taken event 3 in 2 attempts"}
	return s
}

func TestRolloutLines(t *testing.T) {
	var b strings.Builder
	p := &program{out: newPrinter(&b)}
	s := canaryStatus()
	want := `rollout 9 in production: deploy of release 7 over release 6, by dana@host 3m ago
  why:    a new version
  step:   shifting for 30s, the new release has 25 % of the traffic
  stages: 5 % for 1m0s, [25 % and an approval], 50 % for 10m0s and an approval, all
  rolls:  redis, 1 new and 2 old instances wanted
  hook:   web before 0  ended well after 0.80 s
  waits for a person to approve 25 % of the traffic; for 30s now; end it with  ashlar rollout approve production
  waits for enough evidence: 40 of 100 requests; for 30s now
problem: the webhook https://hooks.example.test/ has not taken event 3 in 2 attempts
queued 1: deploy of release 8, by eve@host 61s ago: another
  take it back with  ashlar rollout withdraw production --release 8`
	if diff := cmp.Diff(want, strings.Join(p.rolloutLines(s), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.State.Rollout, s.State.Queue = nil, nil
	want = `no rollout is in flight in production
last rollout: 8 (deploy), live 50m ago, 0.20 s to switch, not proven: its bake was cut short`
	if diff := cmp.Diff(want, strings.Join(p.rolloutLines(s), "\n")); diff != "" {
		t.Errorf("none in flight (-want +got):\n%s", diff)
	}
}

func TestStatusLines(t *testing.T) {
	var b strings.Builder
	p := &program{out: newPrinter(&b)}
	want := `shop/production: release 6 (` + short(digest.FromString("a")) + `) is live at http://127.0.0.1:8080
rollout 9 (deploy of release 7, by dana@host): shifting for 30s
  waits for a person to approve 25 % of the traffic; for 30s now; end it with  ashlar rollout approve production
  waits for enough evidence: 40 of 100 requests; for 30s now
queued 1: deploy of release 8, by eve@host 61s ago: another
  take it back with  ashlar rollout withdraw production --release 8
problem: the webhook https://hooks.example.test/ has not taken event 3 in 2 attempts
COMPONENT  INSTANCE                  RELEASE  PHASE                   AGE  IN FLIGHT
web        shop-production-web-5     6        ready                   60m  3
report     shop-production-report-8  6        hook schedule, ordered       0
shop-production-web-5 has under way: 2 requests, 1 WebSocket
shop-production-web-2 was left, and at the end of its drain time were cut: 2 event streams, 1 TCP connection
warm: release 5 until 12:01:30, 90s from now; a rollback to it is only a switch
job report: runs next at 2026-11-24 13:00:00; the last time it failed after 1.00 s: exited with status 1
last rollout: 8 (deploy), live 50m ago, 0.20 s to switch, not proven: its bake was cut short
in quarantine: release 4, failed in rollout 5: web-3 exited with status 3
rollback: would not work to release 5
  web: 3 objects are damaged
  the secret key has no version 2`
	s := canaryStatus()
	if diff := cmp.Diff(want, strings.Join(p.statusLines(s), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	good := s.State.KnownGood
	for _, c := range []struct {
		r    *rollout.Readiness
		good []digest.Digest
		want string
	}{
		{&rollout.Readiness{Release: good[0], OK: true, Since: ago(5 * time.Minute)}, good, "rollback: would work to release 5, rehearsed since 5m ago"},
		{&rollout.Readiness{Why: []string{"none"}}, good, "rollback: whether one to release 5 would work is being tried out"},
		{nil, good, "rollback: whether one to release 5 would work is being tried out"},
		{&rollout.Readiness{Release: good[0], OK: true, Since: ago(5 * time.Minute)}, nil, "rollback: there is no proven release to go back to"},
	} {
		s.State.Readiness, s.State.KnownGood = c.r, c.good
		if lines := p.statusLines(s); lines[len(lines)-1] != c.want {
			t.Errorf("%q, want %q", lines[len(lines)-1], c.want)
		}
	}
}

func TestCauseLines(t *testing.T) {
	want := `waits for a person to approve 25 % of the traffic
  since:   30s ago
  ends by: an approval
  command: ashlar rollout approve production

waits for enough evidence: 40 of 100 requests
  since:   30s ago
  at most: until 12:05:00, 5m from now
  ends by: more requests`
	if diff := cmp.Diff(want, strings.Join(causeLines(canaryStatus().Why, noon), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStrategyWords(t *testing.T) {
	some := func(way rollout.Way, stages ...rollout.Stage) rollout.Course {
		return rollout.Course{Stages: stages, Ways: map[string]rollout.Way{"web": way}}
	}
	for _, c := range []struct {
		r      release.Rollout
		course rollout.Course
		want   string
	}{
		{release.Rollout{Strategy: "blue-green"}, some(rollout.Beside), "blue-green"},
		{release.Rollout{Strategy: "blue-green"}, some(rollout.Replaced), "blue-green; web: the old end before the new start"},
		{release.Rollout{Strategy: "blue-green", Preview: "next.example.test", Approve: true, WarmMS: 600_000, BakeMS: 60_000}, some(rollout.Beside),
			"blue-green; preview at next.example.test; a person approves the switch; bakes for 1m0s; the old stays warm for 10m0s"},
		{release.Rollout{Strategy: "canary", Analysis: &release.Analysis{}}, some(rollout.Beside, rollout.Stage{Weight: 5, Pause: time.Minute}, rollout.Stage{Weight: 50, Approve: true}),
			"canary; 5 % for 1m0s, 50 % and an approval, all; analysed"},
		{release.Rollout{Strategy: "canary"}, some(rollout.Beside, rollout.Stage{Weight: 5}), "canary; 5 %, all"},
		{release.Rollout{Strategy: "canary"}, some(rollout.Replaced), "canary; all at once, as nothing that changes serves beside the old; web: the old end before the new start"},
		{release.Rollout{Strategy: "canary"}, rollout.Course{}, "canary"},
		{release.Rollout{Strategy: "rolling", Surge: 1}, some(rollout.Replaced), "rolling; web: the old end before the new start"},
		{release.Rollout{Strategy: "rolling", Surge: 1}, some(rollout.Rolled), "rolling; 1 more and 0 fewer instances at most"},
		{release.Rollout{Strategy: "recreate"}, some(rollout.Replaced), "recreate"},
	} {
		if got := strategyWords(c.r, c.course); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// A canary in a pipe: what people said, hooks, what was cut, and what is waited for
// once that takes a while.
func TestCanaryInAPipe(t *testing.T) {
	var b strings.Builder
	p := &program{out: newPrinter(&b), err: newPrinter(&b)}
	s := canaryStatus()
	plan := planFor("shop", "production", *s.State.Rollout)
	pr := newProgress(p, api.Begun{Rollout: *s.State.Rollout, Queued: 1}, plan)
	release := plan.To.Digest
	entries := []record.Entry{
		{Kind: "rollout.queued", Release: release},
		{Kind: "rollout.begun", Release: digest.FromString("another"), Rollout: 10},
		{Kind: "rollout.begun", Release: release, Reason: "deploy of release 7", Data: map[string]string{"kind": "deploy", "from": "6"}},
		{Kind: "hook.ordered", Instance: "shop-production-web-7", Data: map[string]string{"when": "before"}},
		{Kind: "hook.ended", Instance: "shop-production-web-7", Reason: "it ended with status 0", Data: map[string]string{"when": "before"}},
		{Kind: "rollout.wave", Reason: "what they need is ready", Data: map[string]string{"components": "web mailer"}},
		{Kind: "rollout.shifting", Reason: "every new instance is ready: 5 % of the traffic"},
		{Kind: "rollout.stage", Reason: "the router acknowledged 5 % of the traffic"},
		{Kind: "rollout.paused", Reason: "lunch", Data: map[string]string{"by": "dana@host"}},
		{Kind: "rollout.unpaused", Data: map[string]string{"by": "dana@host"}},
		{Kind: "rollout.rolled", Data: map[string]string{"component": "redis", "new": "1", "old": "0"}},
		{Kind: "instance.cut", Instance: "shop-production-web-5", Data: map[string]string{"websockets": "1", "tcp": "2"}},
		{Kind: "warm.kept", Reason: "a rollback to it is only a switch until 12:00"},
		{Kind: "rollout.hurried", Reason: "the deploy of release 8 waits"},
		{Kind: "rollout.reverting", Reason: "web-9 exited with status 1"},
		{Kind: "release.quarantined"},
		{Kind: "rollout.put-back", Reason: "put back: web-9 exited with status 1"},
	}
	for i, e := range entries {
		e.App, e.Env, e.Index, e.Time = "shop", "production", int64(i), noon.Add(time.Duration(i-2)*100*time.Millisecond)
		if e.Rollout == 0 {
			e.Rollout = 11
		}
		if err := pr.entry(e); (err == errEnded) != (i == len(entries)-1) {
			t.Fatalf("%s: %v", e.Kind, err)
		}
		if e.Kind == "rollout.stage" {
			s.Now = noon.Add(40 * time.Second)
			pr.heed(s)
			s.Now = noon.Add(50 * time.Second) // it has just been said
			pr.heed(s)
		}
	}
	want := `release 7 waits behind rollout 9, at place 1
   0.00 s  rollout 11: deploy of release 7
   0.10 s  web  shop-production-web-7  hook before  ordered
   0.20 s  web  shop-production-web-7  hook before  ended: it ended with status 0
   0.30 s  web mailer: what they need is ready
   0.40 s  shifting: every new instance is ready: 5 % of the traffic
   0.50 s  the router acknowledged 5 % of the traffic
problem: the webhook https://hooks.example.test/ has not taken event 3 in 2 attempts
   40.0 s  waits for a person to approve 25 % of the traffic; for 70s now; end it with  ashlar rollout approve production
   40.0 s  waits for enough evidence: 40 of 100 requests; for 70s now
   0.60 s  paused by dana@host: lunch
   0.70 s  resumed by dana@host
   0.80 s  redis  rolls, 1 new and 0 old instances wanted
   0.90 s  web  shop-production-web-5  cut, as its drain time is over: 1 WebSocket, 2 TCP connections
   1.00 s  the old instances are kept warm: a rollback to it is only a switch until 12:00
   1.10 s  the bake is cut short: the deploy of release 8 waits
   1.20 s  putting back: web-9 exited with status 1
   1.30 s  release 7 is in quarantine
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if pr.outcome != "put-back" || pr.r.Number != 11 || pr.r.Kind != "deploy" || pr.r.From.Number != 6 || pr.why != "web-9 exited with status 1" {
		t.Errorf("the outcome: %+v", pr)
	}
}

// A rollout that waited and is dropped never began.
func TestDropped(t *testing.T) {
	var b strings.Builder
	p := &program{out: newPrinter(&b), err: newPrinter(&b)}
	plan := api.Plan{App: "shop", Env: "production", To: api.ReleaseRef{Number: 7, Digest: digest.FromString("b")}}
	pr := newProgress(p, api.Begun{Queued: 2}, plan)
	err := pr.entry(record.Entry{Kind: "rollout.dropped", Release: plan.To.Digest, Rollout: 3, Reason: "a newer one waits: release 8", Time: noon})
	if err != errEnded || pr.outcome != dropped || pr.why != "a newer one waits: release 8" {
		t.Errorf("%v, %+v", err, pr)
	}
	withdrawn := newProgress(&program{out: newPrinter(&strings.Builder{}), err: newPrinter(&strings.Builder{})}, api.Begun{Queued: 2}, plan)
	err = withdrawn.entry(record.Entry{Kind: "rollout.withdrawn", Release: plan.To.Digest, Reason: "withdrawn by dana", Time: noon})
	if err != errEnded || withdrawn.outcome != dropped || withdrawn.why != "withdrawn by dana" {
		t.Errorf("%v, %+v", err, withdrawn)
	}
	if want := "release 7 waits for the end of the freeze, at place 2\n"; !strings.HasPrefix(b.String(), want) {
		t.Errorf("%q", b.String())
	}
}
