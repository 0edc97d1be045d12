package api

import (
	"context"
	"net"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (s *Server) plan(ctx context.Context, r request) (Plan, error) {
	var q PlanRequest
	if err := r.into(&q); err != nil {
		return Plan{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return Plan{}, err
	}
	ref, next, err := s.planned(ctx, q)
	if err != nil {
		return Plan{}, err
	}
	if next.App != key.App {
		return Plan{}, fault.New(fault.Invalid, "the release is one of application %s, not of %s", next.App, key.App)
	}
	target, err := engine.TargetOf(engine.Stored{Number: ref.Number}, next, key.Env)
	if err != nil {
		return Plan{}, err
	}
	state, _, err := s.Store.State(ctx, key)
	if err != nil {
		return Plan{}, err
	}
	stored, current, err := s.Engine.Current(ctx, key)
	if err != nil {
		return Plan{}, err
	}
	if state.Current != nil && len(state.Current.Components) == 0 {
		current = nil // it was taken down
	}
	p := planOf(state, current, next, key)
	p.Course = rollout.CourseOf(state, target)
	if q.Ahead && !p.Nothing {
		s.Ahead(key, &next)
	}
	p.To = ref
	if doc, err := s.Policies.Policy(ctx, key); err != nil {
		return Plan{}, err
	} else if doc != nil {
		p.Policy = digest.FromBytes(doc)
	}
	if stored != nil {
		from := refOf(*stored)
		p.From = &from
	}
	return p, nil
}

// planned finds the release that a plan is asked for.
func (s *Server) planned(ctx context.Context, q PlanRequest) (ReleaseRef, release.Release, error) {
	if q.Document == "" {
		stored, err := s.Engine.FindRelease(ctx, q.App, q.Release)
		if err != nil {
			return ReleaseRef{}, release.Release{}, err
		}
		rel, err := release.Parse(stored.Doc)
		return refOf(stored), rel, err
	}
	rel, err := release.Parse([]byte(q.Document))
	if err != nil {
		return ReleaseRef{}, release.Release{}, err
	}
	d, err := rel.Digest()
	if err != nil {
		return ReleaseRef{}, release.Release{}, err
	}
	if stored, err := s.Store.Release(ctx, d); err == nil {
		return refOf(stored), rel, nil
	}
	return ReleaseRef{Digest: d}, rel, nil // not stored: it gets its number when it is deployed
}

// planOf compares; current is nil when nothing runs.
func planOf(state rollout.State, current *release.Release, next release.Release, key engine.Key) Plan {
	p := Plan{
		App: key.App, Env: key.Env, Nothing: true,
		Changes:     release.Diff(current, &next, key.Env),
		Environment: release.DiffEnvironment(current, &next, key.Env),
	}
	if p.Changes == nil {
		p.Changes = []release.ComponentChange{}
	}
	changes := map[string]release.ComponentChange{}
	for _, c := range p.Changes {
		changes[c.Component] = c
		p.Nothing = p.Nothing && c.Kind == release.Unchanged
	}
	p.Nothing = p.Nothing && len(p.Environment) == 0
	env := next.Environments[key.Env]
	p.Rollout = env.Rollout
	for _, c := range p.Changes {
		if c.Kind == release.Added || c.Kind == release.Replaced {
			for _, h := range env.Components[c.Component].Hooks {
				p.Hooks = append(p.Hooks, PlannedHook{c.Component, h})
			}
		}
	}
	for _, o := range state.Instances {
		if !o.Leaving {
			p.Instances = append(p.Instances, planInstance(o, changes[o.Component], env))
		}
	}
	return p
}

// planInstance tells what happens to one instance: it stays when the next
// release wants the very same spec.
func planInstance(o rollout.Order, c release.ComponentChange, env release.Environment) PlannedInstance {
	in := PlannedInstance{ID: o.ID, Component: o.Component, Kind: release.Unchanged}
	next, wanted := env.Components[o.Component]
	switch {
	case !wanted:
		in.Kind = release.Removed
		return in
	case next.Spec.Digest() == o.Spec:
		return in
	}
	in.Kind = release.Replaced
	for _, reason := range c.Reasons {
		in.Why = append(in.Why, reason.String())
	}
	return in
}

// urlOf is where the requests of an environment arrive; empty when nothing of it
// is routed.
func urlOf(s rollout.State) string {
	t := s.Current
	if t == nil && s.Rollout != nil {
		t = &s.Rollout.To
	}
	if t == nil || t.Listen == "" {
		return ""
	}
	routed := false
	for _, c := range t.Components {
		routed = routed || c.Route != nil && c.Route.TCP == 0
	}
	host, port, err := net.SplitHostPort(t.Listen)
	if !routed || err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // it listens everywhere: this one works here
	}
	if t.TLS != nil {
		return "https://" + net.JoinHostPort(host, port)
	}
	return "http://" + net.JoinHostPort(host, port)
}
