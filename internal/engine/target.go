package engine

import (
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TargetOf reduces a release to what deciding needs of it in one environment.
func TargetOf(stored Stored, rel release.Release, env string) (rollout.Target, error) {
	re, ok := rel.Environments[env]
	if !ok {
		return rollout.Target{}, fault.New(fault.NotFound, "release %d has no environment %q", stored.Number, env).
			Mend("add it to ashlar.yaml under environments: and deploy again")
	}
	t := rollout.Target{
		Release: stored.Digest, Number: stored.Number, Platform: re.Platform, Listen: re.Listen, Strategy: strategyOf(re.Rollout),
	}
	if re.TLS != nil {
		t.TLS = &rollout.TLS{Certificate: re.TLS.Certificate, Key: re.TLS.Key, ACME: re.TLS.ACME, Domains: re.TLS.Domains}
	}
	for _, name := range sortedKeys(re.Components) {
		t.Components = append(t.Components, componentOf(name, re.Components[name]))
	}
	return t, nil
}

// strategyOf gives a declared rollout as deciding sees it: the stages of a canary
// are its steps, those of blue-green the preview and the person that approves.
func strategyOf(r release.Rollout) rollout.Strategy {
	s := rollout.Strategy{
		Kind: r.Strategy, Preview: r.Preview, Warm: milliseconds(r.WarmMS), Sticky: r.Sticky,
		Surge: r.Surge, Unavailable: r.Unavailable, Batch: r.Batch,
		Bake: milliseconds(r.BakeMS), Deadline: milliseconds(r.DeadlineMS), Queue: r.Queue,
	}
	for _, w := range r.Freeze {
		s.Freeze = append(s.Freeze, rollout.Window(w))
	}
	if a := r.Analysis; a != nil {
		s.Analysis = &rollout.Analysis{
			Requests: a.Requests, Errors: a.Errors, Slower: a.Slower, Quantile: a.Quantile,
			Window: milliseconds(a.WindowMS), Prometheus: a.Prometheus, Secret: a.Secret,
		}
		for _, q := range a.Queries {
			s.Analysis.Queries = append(s.Analysis.Queries, rollout.Query(q))
		}
	}
	switch r.Strategy {
	case rollout.Canary:
		for _, step := range r.Steps {
			s.Stages = append(s.Stages, rollout.Stage{Weight: step.Weight, Pause: milliseconds(step.PauseMS), Approve: step.Approve})
		}
		if n := len(s.Stages); n > 0 && s.Stages[n-1] == (rollout.Stage{Weight: 100}) {
			s.Stages = s.Stages[:n-1] // that is the switch
		}
	case rollout.BlueGreen:
		if r.Preview != "" || r.Approve {
			s.Stages = []rollout.Stage{{Approve: r.Approve}}
		}
	}
	if m := r.Match; m != nil {
		s.Match = &rollout.Match{Header: m.Header, Cookie: m.Cookie, Value: m.Value}
	}
	return s
}

func componentOf(name string, c release.Component) rollout.Component {
	out := rollout.Component{
		Name: name, Kind: c.Kind, Spec: c.Spec.Digest(), Replicas: c.Replicas, Start: 30 * time.Second,
		Drain: milliseconds(c.DrainMS), Grace: milliseconds(c.Spec.StopGraceMS), Needs: c.Needs, Schedule: c.Schedule,
	}
	if c.Spec.Health != nil {
		out.Start = milliseconds(c.Spec.Health.StartMS)
	}
	for _, m := range c.Spec.Volumes {
		if m.Mode == release.VolumeExclusive {
			out.Volumes = append(out.Volumes, m.Volume)
		}
	}
	if r := c.Route; r != nil {
		out.Route = &rollout.Route{Host: r.Host, Path: r.Path, TCP: r.TCP, Listen: r.Listen, Hold: milliseconds(r.HoldMS)}
		if x := r.Drains; x != nil {
			out.Route.Drains = rollout.Drains{
				Request: milliseconds(x.RequestMS), WebSocket: milliseconds(x.WebSocketMS), Stream: milliseconds(x.StreamMS),
				GRPC: milliseconds(x.GRPCMS), TCP: milliseconds(x.TCPMS),
			}
		}
	}
	for _, h := range c.Hooks {
		out.Hooks = append(out.Hooks, rollout.Hook{When: h.When, Spec: hookSpec(c.Spec, h).Digest(), Timeout: milliseconds(h.TimeoutMS)})
	}
	for _, x := range c.Schemas {
		out.Schemas = append(out.Schemas, rollout.Schema{Name: x.Name, Min: x.Reads.Min, Max: x.Reads.Max, Writes: x.Writes, Leaves: x.Leaves})
	}
	return out
}

// hookSpec is what the instance of a hook is: the component with another command. It
// serves nothing, so it is neither probed nor reachable.
func hookSpec(spec release.Spec, h release.Hook) release.Spec {
	spec.Kind, spec.Command, spec.Health, spec.Port = "", h.Command, nil, 0
	return spec
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
