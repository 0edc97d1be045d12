package engine_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// resting makes n environments in which a release is live and nothing is left to do.
func resting(tb testing.TB, w *world, e *engine.Engine, n int) []engine.Key {
	tb.Helper()
	stored, err := e.AddRelease(tb.Context(), midnight, "dana", shop("1"))
	if err != nil {
		tb.Fatal(err)
	}
	first, err := e.TargetOf(tb.Context(), stored.Digest, key.Env)
	if err != nil {
		tb.Fatal(err)
	}
	var keys []engine.Key
	for i := range n {
		k := engine.Key{App: fmt.Sprint("a", i), Env: "prod"}
		s := rollout.State{App: k.App, Env: k.Env}
		next, events, err := rollout.Begin(midnight, s, rollout.Request{Kind: rollout.KindDeploy, To: first, Actor: "dana"})
		if err != nil || len(events) != 1 {
			tb.Fatal(events, err)
		}
		if err := e.Put(tb.Context(), midnight, k, next, events); err != nil {
			tb.Fatal(err)
		}
		for busy := true; busy; {
			ticked, err := e.Tick(tb.Context(), midnight, k)
			if err != nil {
				tb.Fatal(err)
			}
			busy = ticked.Busy
		}
		keys = append(keys, k)
	}
	return keys
}

// TestOthersRest: a deploy in one environment, in which instances change all the time,
// does not have the others looked at each time.
func TestOthersRest(t *testing.T) {
	const others = 50
	running(t, func(t *testing.T, w *world, e *engine.Engine) { resting(t, w, e, others) }, func(t *testing.T, w *world, e *engine.Engine) {
		w.took()
		deploy(t, e, "2")
		for range 100 {
			w.changed <- struct{}{}
			time.Sleep(5 * time.Millisecond)
			synctest.Wait()
		}
		looks := 0
		for _, c := range w.took() {
			if strings.HasPrefix(c, "list a") {
				looks++
			}
		}
		if looks > 2*others {
			t.Errorf("100 changes within half a second had %d others looked at %d times", others, looks)
		}
		if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live {
			t.Errorf("not live: %+v", s.Rollout)
		}
	})
}

// BenchmarkIdle is a look at each of 1,000 environments at rest, which Run takes every
// 30 seconds, and the memory that they take.
func BenchmarkIdle(b *testing.B) {
	w := newWorld()
	e := w.engine()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	keys := resting(b, w, e, 1000)
	still := still{platform{w}, map[engine.Key][]rollout.Observed{}}
	for _, k := range keys {
		still.units[k], _ = platform{w}.List(b.Context(), k)
	}
	e.Platforms["local"] = still
	w.took()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ResetTimer()
	for range b.N {
		for _, k := range keys {
			if ticked, err := e.Tick(b.Context(), midnight, k); err != nil || !ticked.AtRest {
				b.Fatal(ticked, err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(keys)), "µs/look")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(keys)), "B/environment")
}

// still is a platform on which nothing changes and whose answers cost nothing.
type still struct {
	platform
	units map[engine.Key][]rollout.Observed
}

func (s still) List(_ context.Context, k engine.Key) ([]rollout.Observed, error) {
	return s.units[k], nil
}
