package engine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// fails deploys a release whose first instance ends at once, and lets it be put back.
func fails(t *testing.T, w *world, e *engine.Engine, version string) engine.Stored {
	t.Helper()
	w.phase = rollout.Exited
	stored := deploy(t, e, version)
	if _, err := e.Tick(t.Context(), midnight, key); err != nil {
		t.Fatal(err)
	}
	w.phase = rollout.Ready
	settle(t, e)
	if s := state(t, e); s.LastResult.Release != stored.Digest || s.LastResult.Outcome != rollout.PutBack {
		t.Fatalf("%+v", s.LastResult)
	}
	return stored
}

// TestQuarantine: a release that failed in one environment is not deployed again in
// any, until a person lifts that and says why.
func TestQuarantine(t *testing.T) {
	w := newWorld()
	e := w.engine()
	live(t, e, "1")
	bad := shop("2")
	bad.Environments["staging"] = bad.Environments["prod"]
	stored := add(t, e, bad)
	w.phase = rollout.Exited
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, stored.Digest, engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	_, _ = e.Tick(t.Context(), midnight, key)
	w.phase = rollout.Ready
	settle(t, e)

	staging := engine.Key{App: key.App, Env: "staging"}
	for _, k := range []engine.Key{key, staging} {
		_, err := e.Deploy(t.Context(), midnight, "dana", k, stored.Digest, engine.DeployOptions{Reason: "please", Force: true})
		wantKind(t, err, fault.Refused)
		if !strings.Contains(fault.Of(err).Error(), "failed in prod and is in quarantine") {
			t.Error(err)
		}
	}
	_, err := e.Lift(t.Context(), midnight, "dana", key.App, stored.Digest, " ")
	wantKind(t, err, fault.Invalid)
	in, err := e.Lift(t.Context(), midnight, "dana", key.App, stored.Digest, "the disk was full")
	if err != nil || len(in) != 1 || in[0] != key {
		t.Fatalf("%v, %v", in, err)
	}
	if in, err := e.Lift(t.Context(), midnight, "dana", key.App, stored.Digest, "again"); err != nil || len(in) != 0 {
		t.Errorf("lifted twice: %v, %v", in, err)
	}
	if _, err := e.Deploy(t.Context(), midnight, "dana", staging, stored.Digest, engine.DeployOptions{}); err != nil {
		t.Error(err)
	}
}

// TestRetry: what was put back can be tried again, with a reason; nothing else can.
func TestRetry(t *testing.T) {
	w := newWorld()
	e := w.engine()
	retry := func(reason string) error {
		_, err := e.Control(t.Context(), midnight, "dana", key, rollout.Command{Verb: rollout.VerbRetry, Reason: reason})
		return err
	}
	wantKind(t, retry("why not"), fault.NotFound)
	live(t, e, "1")
	wantKind(t, retry("why not"), fault.Conflict) // it ended live
	stored := fails(t, w, e, "2")
	wantKind(t, retry(""), fault.Invalid) // it is in quarantine: who lifts that says why
	if err := retry("the network was down"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, retry("at once"), fault.Conflict) // in flight
	settle(t, e)
	if s := state(t, e); s.Current.Release != stored.Digest || len(s.Quarantine) > 0 {
		t.Errorf("release %d is live, quarantine %v", s.Current.Number, s.Quarantine)
	}
}

// TestRollbackOfARolloutInFlight: whoever goes back while a deploy is in flight does not
// wait for it: it is put back.
func TestRollbackOfARolloutInFlight(t *testing.T) {
	e := newWorld().engine()
	first := live(t, e, "1")
	deploy(t, e, "2")
	begun, err := e.Rollback(t.Context(), midnight, "kim", key, "", engine.DeployOptions{Reason: "it hurts"})
	if err != nil || begun.Rollout.Step != rollout.Reverting || begun.Rollout.Number != 2 {
		t.Fatalf("%+v, %v", begun, err)
	}
	settle(t, e)
	s := state(t, e)
	if s.Current.Release != first.Digest || s.LastResult.Outcome != rollout.PutBack || len(s.Quarantine) > 0 {
		t.Errorf("release %d is live, %+v, quarantine %v", s.Current.Number, s.LastResult, s.Quarantine)
	}
	if what := s.LastResult.Failure.What; what != "aborted by kim: rolled back: it hurts" {
		t.Error(what)
	}
}

// TestQueueAndSupersede: a deploy that waits runs when the one in flight has ended, and
// one that supersedes ends it.
func TestQueueAndSupersede(t *testing.T) {
	e := newWorld().engine()
	live(t, e, "1")
	deploy(t, e, "2")
	third := add(t, e, shop("3"))
	begun, err := e.Deploy(t.Context(), midnight, "dana", key, third.Digest, engine.DeployOptions{Queue: true})
	if err != nil || begun.Queued != 1 || begun.Rollout.Number != 2 {
		t.Fatalf("%+v, %v", begun, err)
	}
	why, err := e.Why(t.Context(), midnight, key)
	if err != nil || !strings.Contains(why[len(why)-1].What, "the deploy of release 3 waits for rollout 2") {
		t.Errorf("%+v, %v", why, err)
	}
	settle(t, e)
	if s := state(t, e); s.Current.Release != third.Digest || s.Rollouts != 3 || len(s.KnownGood) != 3 {
		t.Errorf("release %d is live after %d rollouts", s.Current.Number, s.Rollouts)
	}
	deploy(t, e, "4")
	fifth := add(t, e, shop("5"))
	begun, err = e.Deploy(t.Context(), midnight, "dana", key, fifth.Digest, engine.DeployOptions{Supersede: true})
	if err != nil || begun.Queued != 0 || begun.Rollout.Number != 5 {
		t.Fatalf("%+v, %v", begun, err)
	}
	settle(t, e)
	if s := state(t, e); s.Current.Release != fifth.Digest {
		t.Errorf("release %d is live", s.Current.Number)
	}
}

// TestFreeze: within a freeze nothing is deployed by itself. A person may, with a reason;
// going back always works; what waits begins when the freeze is over.
func TestFreeze(t *testing.T) {
	e := newWorld().engine()
	live(t, e, "1")
	live(t, e, "2")
	frozen := shop("3")
	env := frozen.Environments["prod"]
	env.Rollout.Freeze = []release.Window{{From: "00:00", To: "06:00", Zone: "UTC"}}
	frozen.Environments["prod"] = env
	stored := add(t, e, frozen)
	try := func(o engine.DeployOptions) error {
		_, err := e.Deploy(t.Context(), midnight, "dana", key, stored.Digest, o)
		return err
	}
	wantKind(t, try(engine.DeployOptions{}), fault.Refused)
	wantKind(t, try(engine.DeployOptions{Force: true}), fault.Invalid)
	if err := try(engine.DeployOptions{Force: true, Reason: "the shop is on fire"}); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	if _, err := e.Rollback(t.Context(), midnight, "dana", key, "", engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := try(engine.DeployOptions{Queue: true}); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	if s := state(t, e); len(s.Queue) != 1 || s.Rollout != nil {
		t.Fatalf("%d wait, in flight %v", len(s.Queue), s.Rollout)
	}
	if _, err := e.Tick(t.Context(), midnight.Add(6*time.Hour), key); err != nil {
		t.Fatal(err)
	}
	if s := state(t, e); len(s.Queue) != 0 || s.Rollout == nil || s.Rollout.To.Release != stored.Digest {
		t.Errorf("after the freeze: %d wait, in flight %v", len(s.Queue), s.Rollout)
	}
}

// TestFirstDeployWaitsForTheFreeze: it begins when the freeze is over, though nothing ever
// was in the environment; and a word to supersede does not take it past the freeze.
func TestFirstDeployWaitsForTheFreeze(t *testing.T) {
	e := newWorld().engine()
	rel := shop("1")
	env := rel.Environments[key.Env]
	env.Rollout.Freeze = []release.Window{{From: "00:00", To: "06:00", Zone: "UTC"}}
	rel.Environments[key.Env] = env
	for _, o := range []engine.DeployOptions{{Queue: true}, {Queue: true, Supersede: true}} {
		if begun, err := e.Deploy(t.Context(), midnight, "dana", key, add(t, e, rel).Digest, o); err != nil || begun.Queued == 0 {
			t.Fatalf("%+v, %v", begun, err)
		}
	}
	if _, err := e.Tick(t.Context(), midnight.Add(time.Hour), key); err != nil || state(t, e).Rollout != nil {
		t.Fatalf("within the freeze: %v, %v", state(t, e).Rollout, err)
	}
	if _, err := e.Tick(t.Context(), midnight.Add(6*time.Hour), key); err != nil || state(t, e).Rollout == nil {
		t.Errorf("after the freeze: %v, %v", state(t, e).Rollout, err)
	}
}

// TestFreezeWithNothingInFlight: what may wait does so until the freeze is over, though
// nothing else holds it up, and Why says so.
func TestFreezeWithNothingInFlight(t *testing.T) {
	e := newWorld().engine()
	live(t, e, "1")
	frozen := shop("2")
	env := frozen.Environments["prod"]
	env.Rollout.Freeze = []release.Window{{From: "00:00", To: "06:00", Zone: "UTC"}}
	frozen.Environments["prod"] = env
	stored := add(t, e, frozen)
	begun, err := e.Deploy(t.Context(), midnight, "dana", key, stored.Digest, engine.DeployOptions{Queue: true})
	if err != nil || begun.Queued != 1 || begun.Rollout.Number != 0 {
		t.Fatalf("begun %+v (%v)", begun, err)
	}
	settle(t, e)
	if s := state(t, e); len(s.Queue) != 1 || s.Rollout != nil {
		t.Fatalf("%d wait, in flight %v", len(s.Queue), s.Rollout)
	}
	why, err := e.Why(t.Context(), midnight, key)
	if err != nil || len(why) != 1 || !strings.HasPrefix(why[0].What, "the freeze to end") || !why[0].Till.Equal(midnight.Add(6*time.Hour)) {
		t.Errorf("why: %+v (%v)", why, err)
	}
	if _, err := e.Tick(t.Context(), midnight.Add(6*time.Hour), key); err != nil {
		t.Fatal(err)
	}
	if s := state(t, e); s.Rollout == nil || s.Rollout.To.Release != stored.Digest {
		t.Errorf("after the freeze in flight: %v", s.Rollout)
	}
}

// TestRehearse: the answer to "would a rollback work now" is tried out, kept, and in the
// record only when it changes.
func TestRehearse(t *testing.T) {
	w := newWorld()
	e := w.engine()
	rehearse := func() rollout.Readiness {
		t.Helper()
		r, err := e.Rehearse(t.Context(), midnight, key)
		if err != nil {
			t.Fatal(err)
		}
		if kept := state(t, e).Readiness; kept == nil || kept.OK != r.OK || kept.Release != r.Release {
			t.Errorf("kept is %+v, answered %+v", kept, r)
		}
		return r
	}
	first := live(t, e, "1")
	if r := rehearse(); r.OK || r.Release != "" || r.Why[0] != "no release before the current one has proven itself" {
		t.Errorf("%+v", r)
	}
	live(t, e, "2")
	if r := rehearse(); !r.OK || r.Release != first.Digest {
		t.Errorf("%+v", r)
	}
	w.took()
	rehearse()
	if calls := w.took(); len(calls) > 0 {
		t.Errorf("nothing is new and it did %q", calls)
	}
	w.set("check", fault.New(fault.Unavailable, "tree is gone"))
	if r := rehearse(); r.OK || r.Why[0] != "web: tree is gone" {
		t.Errorf("%+v", r)
	}
	w.set("check", nil)
	if _, err := e.Rollback(t.Context(), midnight, "dana", key, "", engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRehearseRoom: a rollback works only if what it would start fits beside what runs; what
// is kept warm is there already.
func TestRehearseRoom(t *testing.T) {
	w := newWorld()
	e := w.engine(func(c *engine.Config) { c.Platforms["local"] = rehearser{platform{w}} })
	rehearse := func() rollout.Readiness {
		t.Helper()
		r, err := e.Rehearse(t.Context(), midnight, key)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	live(t, e, "1")
	live(t, e, "2")
	if r := rehearse(); !r.OK {
		t.Errorf("%+v", r)
	}
	w.set("room map[web:2]", fault.New(fault.Unavailable, "too little memory is left"))
	if r := rehearse(); r.OK || r.Why[0] != "too little memory is left" {
		t.Errorf("%+v", r)
	}
	warm := shop("3")
	env := warm.Environments["prod"]
	env.Rollout.Strategy, env.Rollout.WarmMS = rollout.BlueGreen, 3600_000
	warm.Environments["prod"] = env
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, add(t, e, warm).Digest, engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	if r := rehearse(); !r.OK || state(t, e).Warm == nil {
		t.Errorf("%+v", r)
	}
}

// rehearser is a platform that can try out.
type rehearser struct{ platform }

func (r rehearser) Rehearse(context.Context, engine.Key, release.Spec) error { return nil }

func (r rehearser) Room(_ context.Context, _ engine.Key, more map[string]int) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.call("room %v", more)
}
