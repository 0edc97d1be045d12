package rollout_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// large is an environment of n instances in which a step of a canary of as many new
// ones is at hand, with everything seen and ready.
func large(n int) (rollout.State, rollout.Observation) {
	component := func(spec string) rollout.Component {
		return rollout.Component{
			Name: "web", Spec: digest.FromString(spec), Replicas: n, Start: time.Minute, Drain: time.Minute, Grace: time.Minute,
			Route: &rollout.Route{Path: "/"},
		}
	}
	from := rollout.Target{Release: digest.FromString("release 1"), Number: 1, Strategy: rollout.Strategy{Kind: rollout.BlueGreen}, Components: []rollout.Component{component("specA")}}
	to := from
	to.Release, to.Number, to.Components = digest.FromString("release 2"), 2, []rollout.Component{component("specB")}
	to.Strategy = rollout.Strategy{Kind: rollout.Canary, Stages: []rollout.Stage{{Weight: 10, Pause: time.Hour}}}
	s := rollout.State{App: "shop", Env: "prod", Platform: "local", Current: &from, Rollouts: 1, Ordered: 2 * n}
	s.Rollout = &rollout.Rollout{Number: 1, Kind: rollout.KindDeploy, From: &from, To: to, Step: rollout.Laying, StepAt: midnight, StartedAt: midnight, ProgressAt: midnight}
	o := rollout.Observation{Router: rollout.RouterStatus{InFlight: map[string]int{}}}
	for i := range 2 * n {
		t := &from
		if i >= n {
			t = &to
		}
		id := fmt.Sprintf("shop-prod-web-%d", i+1)
		in := rollout.Instance{ID: id, Component: "web", Release: t.Release, Spec: t.Components[0].Spec}
		s.Instances = append(s.Instances, rollout.Order{Instance: in, OrderedAt: midnight, Start: time.Minute, Seen: true, Served: i < n})
		o.Instances = append(o.Instances, rollout.Observed{ID: id, Component: "web", Release: in.Release, Spec: in.Spec, Phase: rollout.Ready, Address: id + ":80", StartedAt: midnight})
	}
	return s, o
}

// decideAll takes all the steps of a rollout of n instances beside n others, and gives how
// many there were. Instances end at once when they are told to.
func decideAll(b *testing.B, n int) (decisions int) {
	s, o := large(n)
	now := midnight
	for s.Rollout != nil {
		d := rollout.Decide(now, s, o)
		s = d.Next
		o.Router.Generation = s.Table.Generation
		gone := map[string]bool{}
		for _, a := range d.Do {
			if stop, ok := a.(rollout.StopInstance); ok {
				gone[stop.ID] = true
			}
		}
		if len(gone) > 0 {
			kept := o.Instances[:0]
			for _, in := range o.Instances {
				if !gone[in.ID] {
					kept = append(kept, in)
				}
			}
			o.Instances = kept
		}
		if len(d.Events) == 0 && d.Wake.After(now) {
			now = d.Wake
		}
		if decisions++; decisions > 100 {
			b.Fatalf("%d decisions and still %s", decisions, s.Rollout.Step)
		}
	}
	return decisions
}

// BenchmarkDecide is time per decision and memory per instance, over a whole canary of
// so many new instances beside as many old ones.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			decisions := 0
			for b.Loop() {
				decisions += decideAll(b, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(decisions)/1e6, "ms/decision")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(decisions)/float64(2*n), "ns/decision/instance")
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			s, o := large(n)
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(2*n), "B/instance")
			runtime.KeepAlive(s)
			runtime.KeepAlive(o)
		})
	}
}

// TestDecideGrowsLinearly holds decisions to at most linear growth. A hundredfold
// environment takes about a hundred times as long; one quadratic scan makes that ten
// thousand. The bound leaves room for a machine that does other things.
func TestDecideGrowsLinearly(t *testing.T) {
	took := func(n int) time.Duration {
		best := time.Hour
		for range 3 {
			r := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					decideAll(b, n)
				}
			})
			best = min(best, time.Duration(r.NsPerOp()))
		}
		return best
	}
	small, big := took(100), took(10_000)
	if big > 1000*small {
		t.Errorf("100 instances take %s, 10,000 take %s", small, big)
	}
}
