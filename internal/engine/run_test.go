package engine_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// running plays Run in a bubble of its own time: time passes only while everything
// waits, and the bubble bursts if a goroutine is left when the test is over.
func running(t *testing.T, prepare func(*testing.T, *world, *engine.Engine), then func(t *testing.T, w *world, e *engine.Engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		e := w.engine()
		if prepare != nil {
			prepare(t, w, e)
		}
		w.took()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx, time.Now) }()
		synctest.Wait()
		then(t, w, e)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// looks counts how often the platform was asked since the last took.
func looks(w *world, env engine.Key) int {
	n := 0
	for _, c := range w.took() {
		if c == "list "+env.String() {
			n++
		}
	}
	return n
}

// TestRequestWakes: a request is served at once, in an environment that did not
// exist when Run began, and everything that can follow does without any pause.
func TestRequestWakes(t *testing.T) {
	running(t, nil, func(t *testing.T, w *world, e *engine.Engine) {
		began := time.Now()
		deploy(t, e, "1")
		synctest.Wait()
		if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live {
			t.Errorf("not live: %+v", s.Rollout)
		}
		if _, err := e.Down(t.Context(), time.Now(), "dana", key, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := state(t, e); s.Rollout != nil || len(s.Instances) > 0 {
			t.Errorf("not down: %+v", s.Rollout)
		}
		if passed := time.Since(began); passed != 0 {
			t.Errorf("it took %s", passed)
		}
	})
}

// TestRunTakesUpWhatIsThere: environments that have a state are looked at from the
// beginning, without being woken.
func TestRunTakesUpWhatIsThere(t *testing.T) {
	running(t, func(t *testing.T, w *world, _ *engine.Engine) { deploy(t, w.engine(), "1") }, func(t *testing.T, _ *world, e *engine.Engine) {
		if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live {
			t.Errorf("not live: %+v", s.Rollout)
		}
	})
}

func isLive(t *testing.T, _ *world, e *engine.Engine) { live(t, e, "1") }

// TestRehearsedWhenItChanges: once a rollback would lead elsewhere, it is tried out without
// a pause whether that would work, while the new release still bakes too.
func TestRehearsedWhenItChanges(t *testing.T) {
	running(t, isLive, func(t *testing.T, _ *world, e *engine.Engine) {
		again := 2 * time.Second // more than an attempt in a busy environment waits for the next
		time.Sleep(again)
		synctest.Wait()
		first := state(t, e).Current.Release
		if r := state(t, e).Readiness; r == nil || r.Release != "" {
			t.Fatalf("known of a rollback is %+v", r)
		}
		rel := shop("2")
		env := rel.Environments[key.Env]
		env.Rollout.BakeMS = 60_000
		rel.Environments[key.Env] = env
		if _, err := e.Deploy(t.Context(), time.Now(), "dana", key, add(t, e, rel).Digest, engine.DeployOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(again)
		synctest.Wait()
		s := state(t, e)
		if s.Rollout == nil || s.Rollout.Step != rollout.Baking {
			t.Fatalf("it does not bake: %+v", s.Rollout)
		}
		if r := s.Readiness; r == nil || r.Release != first {
			t.Errorf("known of a rollback is %+v, want one to %s", r, first)
		}
	})
}

// TestChangeWakes: a platform's signal is a look at once; without one, an environment
// in which nothing is left to do is looked at every thirty seconds.
func TestChangeWakes(t *testing.T) {
	running(t, isLive, func(t *testing.T, w *world, e *engine.Engine) {
		time.Sleep(5 * time.Second) // until the way back was tried out, which looks too
		synctest.Wait()
		w.took()
		for end := time.Now().Add(time.Minute); looks(w, key) == 0 && time.Now().Before(end); synctest.Wait() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(29900 * time.Millisecond)
		synctest.Wait()
		if n := looks(w, key); n != 0 {
			t.Fatalf("looked %d times without a reason", n)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if n := looks(w, key); n != 1 {
			t.Fatalf("looked %d times after thirty seconds", n)
		}
		w.mu.Lock()
		for id, u := range w.units {
			u.Phase, u.Exit = rollout.Exited, &rollout.Exit{Code: 1}
			w.units[id] = u
			break
		}
		w.mu.Unlock()
		w.changed <- struct{}{}
		synctest.Wait() // no time passes here
		if n := looks(w, key); n == 0 {
			t.Error("the signal was not followed")
		}
		if s := state(t, e); s.Ordered != 3 {
			t.Errorf("%d were ordered, want a third", s.Ordered)
		}
	})
}

// TestDecisionWakes: the decision says when to look again; here that is the end of
// the start time, 3 s, of an instance that never becomes ready.
func TestDecisionWakes(t *testing.T) {
	slow := func(t *testing.T, w *world, e *engine.Engine) {
		w.phase = rollout.Starting
		if _, err := e.Deploy(t.Context(), time.Now(), "dana", key, add(t, e, shop("1")).Digest, engine.DeployOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	running(t, slow, func(t *testing.T, w *world, e *engine.Engine) {
		w.mu.Lock()
		for id, u := range w.units {
			u.StartedAt = time.Now()
			w.units[id] = u
		}
		w.mu.Unlock()
		w.changed <- struct{}{}
		time.Sleep(3*time.Second - time.Millisecond)
		synctest.Wait()
		if r := state(t, e).Rollout; r == nil || r.Step != rollout.Laying {
			t.Fatalf("it did not wait: %+v", r)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.PutBack {
			t.Errorf("it was not put back: %+v", s.Rollout)
		}
	})
}

// TestErrorsPause: after an error it pauses, longer each time up to five seconds,
// tries again by itself, says so in Status, and begins anew once it worked.
func TestErrorsPause(t *testing.T) {
	running(t, isLive, func(t *testing.T, w *world, e *engine.Engine) {
		time.Sleep(5 * time.Second) // until the way back was tried out, which looks too
		synctest.Wait()
		w.set("list", errBroken)
		w.took()
		w.changed <- struct{}{}
		var pauses []time.Duration
		last := time.Now()
		for end := last.Add(time.Minute); len(pauses) < 7 && time.Now().Before(end); {
			synctest.Wait()
			if looks(w, key) > 0 {
				pauses, last = append(pauses, time.Since(last)), time.Now()
			}
			time.Sleep(time.Millisecond)
		}
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		if diff := cmp.Diff([]time.Duration{0, ms(250), ms(500), ms(1000), ms(2000), ms(4000), ms(5000)}, pauses); diff != "" {
			t.Errorf("-want +got: %s", diff)
		}
		if status, err := e.Status(t.Context(), time.Now(), key); err != nil || !slices.ContainsFunc(status.Problems, func(p string) bool { return p != "" }) {
			t.Errorf("status has no problem: %+v, %v", status, err)
		}
		w.set("list", nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if status, err := e.Status(t.Context(), time.Now(), key); err != nil || len(status.Problems) > 0 {
			t.Errorf("the problem is over and told: %q, %v", status.Problems, err)
		}
		w.took()
		w.set("list", errBroken)
		w.changed <- struct{}{}
		synctest.Wait()
		looks(w, key)
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		if n := looks(w, key); n != 1 {
			t.Errorf("the first pause after it worked: %d looks in 250 ms, want 1", n)
		}
	})
}

// TestSlowOneDelaysNoOther: each environment has a goroutine of its own; and one
// that hangs does not keep Run from ending.
func TestSlowOneDelaysNoOther(t *testing.T) {
	slow := engine.Key{App: key.App, Env: "slow"}
	hang := func(t *testing.T, w *world, e *engine.Engine) {
		rel := shop("1")
		rel.Environments[slow.Env] = rel.Environments[key.Env]
		stored := add(t, e, rel)
		if _, err := e.Deploy(t.Context(), midnight, "dana", slow, stored.Digest, engine.DeployOptions{}); err != nil {
			t.Fatal(err)
		}
		w.block = func(ctx context.Context, env engine.Key) {
			if env == slow {
				<-ctx.Done()
			}
		}
	}
	running(t, hang, func(t *testing.T, w *world, e *engine.Engine) {
		deploy(t, e, "2")
		synctest.Wait()
		if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live {
			t.Errorf("not live: %+v", s.Rollout)
		}
	})
}

// TestWakeNeverBlocks, even with nobody listening.
func TestWakeNeverBlocks(t *testing.T) {
	e := newWorld().engine()
	for range 1000 {
		e.Wake(key)
	}
}

// TestRunNeedsItsEnvironments: a store that cannot be read ends Run with its error.
func TestRunNeedsItsEnvironments(t *testing.T) {
	w := newWorld()
	w.set("environments", errBroken)
	if err := w.engine().Run(t.Context(), time.Now); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
}
