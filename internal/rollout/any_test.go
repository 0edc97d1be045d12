package rollout_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// States and observations that need not follow from each other.

var (
	someComponents = []string{"api", "web", "worker"}
	someSpecs      = []digest.Digest{digest.FromString("specA"), digest.FromString("specB")}
	somePhases     = []rollout.Phase{rollout.Starting, rollout.Ready, rollout.Unready, rollout.Unknown, rollout.Stopping, rollout.Exited}
	someSteps      = []rollout.Step{rollout.Laying, rollout.Shifting, rollout.Switching, rollout.Draining, rollout.Baking, rollout.Retiring, rollout.Reverting}
)

func anyTarget(t *rapid.T, label string) rollout.Target {
	n := rapid.IntRange(1, 9).Draw(t, label+" release")
	out := rollout.Target{Release: digest.FromString(fmt.Sprint("release ", n)), Number: n, Platform: "local", Listen: "127.0.0.1:80", Strategy: anyStrategy(t)}
	for i, name := range someComponents {
		if !rapid.Bool().Draw(t, label+" has "+name) {
			continue
		}
		c := rollout.Component{
			Name: name, Spec: rapid.SampledFrom(someSpecs).Draw(t, name+" spec"), Replicas: rapid.IntRange(0, 3).Draw(t, name+" replicas"),
			Start: anyDuration(t, "start"), Drain: anyDuration(t, "drain"), Grace: anyDuration(t, "grace"),
		}
		alter(t, &c, someComponents[:i])
		if name != "worker" {
			c.Route = &rollout.Route{Path: rapid.SampledFrom([]string{"/", "/a", "/b"}).Draw(t, name+" path"), Hold: time.Second}
		}
		out.Components = append(out.Components, c)
	}
	return out
}

func anyStrategy(t *rapid.T) rollout.Strategy {
	s := rollout.Strategy{Kind: rapid.SampledFrom([]string{rollout.BlueGreen, rollout.Canary, rollout.Rolling, rollout.Recreate}).Draw(t, "strategy")}
	switch s.Kind {
	case rollout.BlueGreen:
		if rapid.Bool().Draw(t, "approve") {
			s.Stages, s.Preview = []rollout.Stage{{Approve: true}}, "preview.example"
		}
		s.Warm = anyDuration(t, "warm")
	case rollout.Canary:
		for weight := rapid.IntRange(1, 100).Draw(t, "weight"); weight <= 100; weight += rapid.IntRange(20, 60).Draw(t, "more") {
			s.Stages = append(s.Stages, rollout.Stage{Weight: weight, Pause: anyDuration(t, "pause"), Approve: rapid.IntRange(0, 3).Draw(t, "approve") == 0})
		}
	case rollout.Rolling:
		s.Surge, s.Unavailable, s.Batch = rapid.IntRange(0, 2).Draw(t, "surge"), rapid.IntRange(0, 2).Draw(t, "unavailable"), rapid.IntRange(0, 2).Draw(t, "batch")
		if s.Surge+s.Unavailable == 0 {
			s.Surge = 1
		}
	}
	s.Bake = anyDuration(t, "bake")
	return s
}

// alter gives a component a kind, needs among those before it, a volume, hooks.
func alter(t *rapid.T, c *rollout.Component, before []string) {
	switch rapid.IntRange(0, 7).Draw(t, c.Name+" is special") {
	case 0:
		c.Volumes, c.Replicas = []string{"data of " + c.Name}, 1
	case 1:
		if c.Name == "worker" {
			c.Kind, c.Replicas = rollout.KindSingleton, 1
		}
	case 2:
		if c.Name == "worker" {
			c.Kind = rollout.KindWorker
		}
	case 3:
		c.Hooks = []rollout.Hook{{When: rollout.HookBefore, Spec: "hook of " + c.Spec, Timeout: 5 * time.Second}}
	case 4:
		c.Hooks = []rollout.Hook{{When: rollout.HookAfter, Spec: "hook of " + c.Spec, Timeout: 5 * time.Second}, {When: rollout.HookRollback, Spec: "back of " + c.Spec, Timeout: 5 * time.Second}}
	}
	if c.Kind != "" || len(c.Volumes) > 0 {
		c.Spec = variant(c.Spec) // one spec is one kind of component
	}
	for _, name := range before {
		if rapid.IntRange(0, 2).Draw(t, c.Name+" needs "+name) == 0 {
			c.Needs = append(c.Needs, name)
		}
	}
}

func variant(spec digest.Digest) digest.Digest { return digest.FromString("special " + string(spec)) }

func anyDuration(t *rapid.T, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, 20).Draw(t, label)) * 500 * time.Millisecond
}

func anyTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, "no "+label) {
		return time.Time{}
	}
	return midnight.Add(time.Duration(rapid.IntRange(-200, 200).Draw(t, label)) * 100 * time.Millisecond)
}

func anyState(t *rapid.T) rollout.State {
	s := rollout.State{App: "shop", Env: "prod", Rollouts: 7, Ordered: rapid.IntRange(0, 8).Draw(t, "ordered")}
	if rapid.Bool().Draw(t, "is live") {
		c := anyTarget(t, "current")
		s.Current = &c
	}
	if rapid.Bool().Draw(t, "in flight") {
		r := rollout.Rollout{Number: 7, Kind: rollout.KindDeploy, From: s.Current, To: anyTarget(t, "to"), Step: rapid.SampledFrom(someSteps).Draw(t, "step"), StepAt: midnight, StartedAt: midnight, ProgressAt: midnight}
		r.Wave, r.StageAt = rapid.IntRange(0, 2).Draw(t, "wave"), anyTime(t, "stage at")
		if n := len(r.To.Strategy.Stages); n > 0 {
			r.Stage = rapid.IntRange(0, n-1).Draw(t, "stage")
			r.Share = r.To.Strategy.Stages[r.Stage].Weight
		}
		switch r.Step {
		case rollout.Draining, rollout.Baking, rollout.Retiring:
			r.DrainTill, r.SwitchAt = anyTime(t, "drain till"), midnight
			s.Current = &r.To
		case rollout.Reverting:
			r.Failure = &rollout.Failure{What: "did not work"}
		}
		s.Rollout = &r
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "orders") {
		name := rapid.SampledFrom(someComponents).Draw(t, "component")
		s.Instances = append(s.Instances, rollout.Order{
			Instance: rollout.Instance{
				ID: fmt.Sprintf("shop-prod-%s-%d", name, i+1), Component: name,
				Release: digest.FromString("release 1"), Spec: rapid.SampledFrom(append(someSpecs, variant(someSpecs[0]))).Draw(t, "spec"),
			},
			OrderedAt: midnight.Add(-anyDuration(t, "age")), Start: anyDuration(t, "start"), Drain: anyDuration(t, "drain"), Grace: anyDuration(t, "grace"),
			Seen: rapid.Bool().Draw(t, "seen"), Served: rapid.Bool().Draw(t, "served"), Unready: anyTime(t, "unready"),
			Leaving: rapid.IntRange(0, 3).Draw(t, "leaving") == 3, DrainTill: anyTime(t, "drain till"), StopAt: anyTime(t, "stop at"),
		})
	}
	s.Table = rollout.Table{Generation: rapid.Int64Range(0, 3).Draw(t, "table"), Listen: "127.0.0.1:80"}
	for _, name := range someComponents[:rapid.IntRange(0, 2).Draw(t, "services")] {
		svc := rollout.Service{Name: name, Path: "/", Hold: time.Second}
		for _, o := range s.Instances {
			if o.Component == name && rapid.Bool().Draw(t, "routed") {
				svc.Backends = append(svc.Backends, rollout.Backend{ID: o.ID, Address: o.ID + ":1", Weight: 1})
			}
		}
		s.Table.Services = append(s.Table.Services, svc)
	}
	if rapid.Bool().Draw(t, "restarts") {
		s.Restarts = map[string]rollout.Restart{"web": {Count: rapid.IntRange(0, 100).Draw(t, "count"), After: anyTime(t, "after")}}
	}
	return clone(s)
}

func anyObservation(t *rapid.T, s rollout.State) rollout.Observation {
	o := rollout.Observation{
		Router:   rollout.RouterStatus{Generation: rapid.Int64Range(0, 4).Draw(t, "generation"), InFlight: map[string]int{}},
		Attempts: map[string]rollout.Attempt{},
	}
	see := func(in rollout.Instance) {
		seen := rollout.Observed{
			ID: in.ID, Component: in.Component, Release: in.Release, Spec: in.Spec, Address: in.ID + ":1",
			Phase: rapid.SampledFrom(somePhases).Draw(t, "phase"), StartedAt: midnight.Add(-anyDuration(t, "since")),
		}
		if seen.Phase == rollout.Exited && rapid.Bool().Draw(t, "exit known") {
			seen.Exit = &rollout.Exit{Code: 1, At: midnight}
		}
		o.Instances = append(o.Instances, seen)
	}
	for _, order := range s.Instances {
		if rapid.Bool().Draw(t, "exists") {
			see(order.Instance)
		} else if n := rapid.IntRange(0, 4).Draw(t, "attempts"); n > 0 {
			o.Attempts[order.ID] = rollout.Attempt{Count: n, Last: "busy", At: midnight.Add(-anyDuration(t, "attempt"))}
		}
		if rapid.Bool().Draw(t, "busy") {
			o.Router.InFlight[order.ID] = 1
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "orphans") {
		id := fmt.Sprintf("shop-prod-web-%d", rapid.IntRange(1, 12).Draw(t, "orphan"))
		if !slices.ContainsFunc(o.Instances, func(in rollout.Observed) bool { return in.ID == id }) &&
			!slices.ContainsFunc(s.Instances, func(in rollout.Order) bool { return in.ID == id }) {
			see(rollout.Instance{ID: id, Component: "web", Spec: rapid.SampledFrom(someSpecs).Draw(t, "orphan's spec")})
		}
	}
	if p := s.Plea(); p != nil && rapid.Bool().Draw(t, "judged") {
		a := rollout.Admission{Release: p.Release, Policy: digest.FromString("policy"), Admitted: rapid.Bool().Draw(t, "admitted"), Data: map[string]string{"policy": "x"}}
		switch rapid.IntRange(0, 4).Draw(t, "verdict") {
		case 0:
			a.Error = "no answer"
		case 1:
			a.Release = digest.FromString("another")
		}
		o.Admission = &a
	}
	if rapid.Bool().Draw(t, "refused") {
		o.Refused = &rollout.Refused{Generation: s.Table.Generation, What: "in use"}
	}
	return clone(o)
}
