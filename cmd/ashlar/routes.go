package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// kernel is the router of TCP services.
type kernel interface {
	engine.Router
	// Check says whether Apply could take the table as it is written.
	Check(env engine.Key, table rollout.Table) error
	// Routes says whether the environment has, or should have, TCP services.
	Routes(env engine.Key) bool
}

// routes is one engine.Router of two: the http services of a table are the router process's,
// the TCP services the kernel's. A table is in force when both have it.
type routes struct {
	http engine.Router
	tcp  kernel
}

// Apply gives each its part. A table that either refuses for what is in it reaches neither;
// one that the second cannot take is not acknowledged, and the engine asks again or goes back.
func (r routes) Apply(ctx context.Context, env engine.Key, table rollout.Table) error {
	if err := r.tcp.Check(env, table); err != nil {
		return err
	}
	http := table
	http.Services = slices.DeleteFunc(slices.Clone(table.Services), func(s rollout.Service) bool { return s.TCP != 0 })
	if err := r.http.Apply(ctx, env, http); err != nil {
		return err
	}
	return r.tcp.Apply(ctx, env, table)
}

// Status tells of both; the generation is the older one. The kernel is not asked where
// it has no part.
func (r routes) Status(ctx context.Context, env engine.Key) (rollout.RouterStatus, error) {
	s, err := r.http.Status(ctx, env)
	if err != nil || !r.tcp.Routes(env) {
		return s, err
	}
	t, err := r.tcp.Status(ctx, env)
	if err != nil || !r.tcp.Routes(env) { // it had been going, and is gone
		return s, err
	}
	s.Generation = min(s.Generation, t.Generation)
	s.InFlight = merged(s.InFlight, t.InFlight)
	s.Kinds = merged(s.Kinds, t.Kinds)
	s.Cut = merged(s.Cut, t.Cut)
	return s, nil
}

// merged joins two maps by backend. No backend is in both: a component has one route.
func merged[V any](a, b map[string]V) map[string]V {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, b)
	return out
}

// peers knows which services the instances of an environment can call by name: the TCP
// services of its live release and of the one that is being laid.
type peers struct {
	store interface {
		State(ctx context.Context, env engine.Key) (rollout.State, int64, error)
		Release(ctx context.Context, d digest.Digest) (engine.Stored, error)
	}
	kernel interface {
		Addresses(env engine.Key, services []string) (map[string]netip.Addr, error)
	}
	log *slog.Logger

	mu    sync.Mutex
	known map[digest.Digest]map[string][]string // release to environment to its TCP services
}

// of gives the addresses of an environment's services. Without them an instance starts all the
// same, and its health check tells whether it needs them.
func (p *peers) of(env engine.Key) map[string]netip.Addr {
	at, err := p.find(context.Background(), env)
	if err != nil {
		p.log.Error("instances start without the names of services", "app", env.App, "env", env.Env, "err", err)
	}
	return at
}

func (p *peers) find(ctx context.Context, env engine.Key) (map[string]netip.Addr, error) {
	state, _, err := p.store.State(ctx, env)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range targets(state) {
		of, err := p.services(ctx, t, env.Env)
		if err != nil {
			return nil, err
		}
		names = append(names, of...)
	}
	slices.Sort(names)
	return p.kernel.Addresses(env, slices.Compact(names))
}

func targets(state rollout.State) []digest.Digest {
	var out []digest.Digest
	if state.Current != nil {
		out = append(out, state.Current.Release)
	}
	if state.Rollout != nil {
		out = append(out, state.Rollout.To.Release)
	}
	return out
}

// services lists the TCP services of a release in an environment. Releases never change, so
// each is read once.
func (p *peers) services(ctx context.Context, d digest.Digest, env string) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if of, known := p.known[d]; known {
		return of[env], nil
	}
	stored, err := p.store.Release(ctx, d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the target of a down: nothing
	}
	if err != nil {
		return nil, err
	}
	rel, err := release.Parse(stored.Doc)
	if err != nil {
		return nil, err
	}
	of := map[string][]string{}
	for name, e := range rel.Environments {
		for component, c := range e.Components {
			if c.Route != nil && c.Route.TCP != 0 {
				of[name] = append(of[name], component)
			}
		}
	}
	if p.known == nil {
		p.known = map[digest.Digest]map[string][]string{}
	}
	p.known[d] = of
	return of[env], nil
}
