package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// keptReleases is how many parsed documents an engine remembers: they never change.
const keptReleases = 16

// Actor is the name under which the engine itself appears in the record.
const Actor = "ashlar"

// Config is what an Engine is made of.
type Config struct {
	Store     Store
	Platforms map[string]Platform // by the name that environments use
	Router    Router
	Artifacts Artifacts
	Admitter  Admitter // nil: everything is admitted
	Metrics   Metrics  // nil: an analysis with queries never gets an answer
	Log       *slog.Logger
	Parallel  int // actions of one decision at a time; 0 means 4; 1 makes it deterministic

	// Decide is rollout.Decide when nil. The simulator's own tests break it on
	// purpose, to see that the simulator notices.
	Decide func(now time.Time, s rollout.State, o rollout.Observation) rollout.Decision
}

// Engine drives environments. Its methods are safe for concurrent use; two
// engines on one store do no harm, but one of them gets ErrStale.
type Engine struct {
	Config

	mu   sync.Mutex
	envs map[Key]*memory
	wake chan Key // environments that something was asked of

	parsed   map[digest.Digest]release.Release // documents that were read lately; guarded by mu
	due      map[Key]bool                      // environments whose rollback is to be rehearsed; guarded by mu
	rehearse chan struct{}                     // capacity 1: due is not empty
}

// memory is what one process knows of an environment beyond its state: nothing
// that is not found out again after a crash.
type memory struct {
	sync.Mutex             // held for the length of a Tick or a request
	atRest     atomic.Bool // as the last Tick of Run found it
	attempts   map[string]rollout.Attempt
	refused    *rollout.Refused
	specs      map[digest.Digest]release.Spec // by spec digest, of the releases in use
	trouble    string                         // what kept Run from the last step; guarded by Engine.mu
	metrics    map[string]rollout.Metric      // last answers of Prometheus; guarded by Engine.mu, never changed
}

// New makes an engine. Nothing happens before Tick or Run.
func New(c Config) *Engine {
	if c.Parallel == 0 {
		c.Parallel = 4
	}
	if c.Decide == nil {
		c.Decide = rollout.Decide
	}
	return &Engine{Config: c, envs: map[Key]*memory{}, wake: make(chan Key, 64), parsed: map[digest.Digest]release.Release{}, due: map[Key]bool{}, rehearse: make(chan struct{}, 1)}
}

func (e *Engine) memory(key Key) *memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.envs[key]
	if m == nil {
		m = &memory{attempts: map[string]rollout.Attempt{}, specs: map[digest.Digest]release.Spec{}}
		e.envs[key] = m
	}
	return m
}

// Ticked is what a Tick found.
type Ticked struct {
	Turned  bool      // a rollback would lead elsewhere than before, or a rollout has ended
	AtRest  bool      // nothing is left to do: only a change outside or a request can give reason to look
	Busy    bool      // something changed or was done: look again at once
	Wake    time.Time // look again at the latest; zero: only after a change
	Waiting []string  // what is waited for, in words
}

// Tick takes one step of one environment: observe, decide, commit, act. An error
// means that nothing was decided or that an action failed; either way the next
// Tick looks again.
func (e *Engine) Tick(ctx context.Context, now time.Time, key Key) (Ticked, error) {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	state, version, err := e.Store.State(ctx, key)
	if err != nil {
		return Ticked{}, fmt.Errorf("read the state of %s: %w", key, err)
	}
	platform, err := e.platform(state)
	if err != nil || platform == nil {
		return Ticked{}, err
	}
	seen, err := e.observe(ctx, key, platform, m)
	if err != nil {
		return Ticked{}, err
	}
	seen.Metrics = e.ask(ctx, key, state.Questions())
	if err = e.turn(ctx, now, key, state, &seen); err != nil {
		return Ticked{}, err
	}
	seen.Admission = e.admission(ctx, now, state.Plea())
	d := e.Decide(now, state, seen)
	if len(d.Events) > 0 {
		if err := e.commit(ctx, now, Actor, key, version, d.Next, d.Events); err != nil {
			return Ticked{}, fmt.Errorf("commit the decision for %s: %w", key, err)
		}
	}
	m.forget(d.Next)
	err = e.act(ctx, now, key, platform, m, d.Do)
	turned := d.Next.LastResult != state.LastResult || d.Next.RollbackTo() != state.RollbackTo()
	rest := len(d.Events) == 0 && len(d.Do) == 0 && d.Wake.IsZero() && d.Next.Rollout == nil && len(d.Next.Queue) == 0
	return Ticked{Turned: turned, AtRest: rest, Busy: len(d.Events) > 0 || len(d.Do) > 0 && err == nil, Wake: d.Wake, Waiting: d.Waiting}, err
}

// observe gathers what there is to know. A part that does not answer is an error:
// nothing is ever decided on half a picture.
func (e *Engine) observe(ctx context.Context, key Key, p Platform, m *memory) (rollout.Observation, error) {
	instances, err := p.List(ctx, key)
	if err != nil {
		return rollout.Observation{}, fmt.Errorf("list the instances of %s: %w", key, err)
	}
	status, err := e.Router.Status(ctx, key)
	if err != nil {
		return rollout.Observation{}, fmt.Errorf("ask the router for its status: %w", err)
	}
	return rollout.Observation{Instances: instances, Router: status, Attempts: m.attempts, Refused: m.refused}, nil
}

// act does what was decided: a table first and alone, then the rest side by side.
// An action that fails is done again by a later decision.
func (e *Engine) act(ctx context.Context, now time.Time, key Key, p Platform, m *memory, actions []rollout.Action) error {
	var errs []error
	for len(actions) > 0 {
		table, ok := actions[0].(rollout.ApplyTable)
		if !ok {
			break
		}
		actions = actions[1:]
		if err := e.applyTable(ctx, key, m, table.Table); err != nil {
			errs = append(errs, err)
		}
	}
	var g errgroup.Group
	g.SetLimit(e.Parallel)
	results := make([]error, len(actions))
	for i, a := range actions {
		if e.Parallel == 1 {
			results[i] = e.do(ctx, key, p, m, a)
			continue
		}
		g.Go(func() error { results[i] = e.do(ctx, key, p, m, a); return nil })
	}
	_ = g.Wait() // the functions return nil: each error is in results
	for i, err := range results {
		start, ok := actions[i].(rollout.StartInstance)
		switch {
		case ok && err != nil:
			last := m.attempts[start.Instance.ID]
			m.attempts[start.Instance.ID] = rollout.Attempt{Count: last.Count + 1, Last: fault.Of(err).Error(), At: now}
			errs = append(errs, fmt.Errorf("%s: %w", actions[i], err))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", actions[i], err))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) applyTable(ctx context.Context, key Key, m *memory, t rollout.Table) error {
	err := e.Router.Apply(ctx, key, t)
	if err == nil {
		m.refused = nil
		return nil
	}
	if kind := fault.Of(err).Kind; kind == fault.Conflict || kind == fault.Invalid || kind == fault.Refused {
		m.refused = &rollout.Refused{Generation: t.Generation, What: fault.Of(err).Error()}
	}
	return fmt.Errorf("route %s: %w", t, err)
}

func (e *Engine) do(ctx context.Context, key Key, p Platform, m *memory, a rollout.Action) error {
	switch a := a.(type) {
	case rollout.StartInstance:
		spec, err := e.spec(ctx, key, m, a.Instance)
		if err != nil {
			return err
		}
		return p.Start(ctx, key, a.Instance, spec)
	case rollout.StopInstance:
		return p.Stop(ctx, a.ID)
	case rollout.RemoveInstance:
		return p.Remove(ctx, a.ID)
	default:
		panic(fmt.Sprintf("engine: unknown action %T", a))
	}
}

// spec finds what an instance is, in the release that ordered it.
func (e *Engine) spec(ctx context.Context, key Key, m *memory, in rollout.Instance) (release.Spec, error) {
	e.mu.Lock()
	spec, ok := m.specs[in.Spec]
	e.mu.Unlock()
	if ok {
		return spec, nil
	}
	_, rel, err := e.release(ctx, in.Release)
	if err != nil {
		return release.Spec{}, err
	}
	c := rel.Environments[key.Env].Components[in.Component]
	spec = c.Spec
	for _, h := range c.Hooks {
		if as := hookSpec(c.Spec, h); in.Hook == h.When && as.Digest() == in.Spec {
			spec = as
		}
	}
	if got := spec.Digest(); got != in.Spec {
		return release.Spec{}, fault.New(fault.Internal, "release %s has no component %s with spec %s in %s", in.Release, in.Component, in.Spec, key.Env)
	}
	e.mu.Lock()
	m.specs[in.Spec] = spec
	e.mu.Unlock()
	return spec, nil
}

func (e *Engine) release(ctx context.Context, d digest.Digest) (Stored, release.Release, error) {
	stored, err := e.Store.Release(ctx, d)
	if errors.Is(err, fs.ErrNotExist) {
		return stored, release.Release{}, fault.New(fault.NotFound, "release %s is not known", d).Mend("list the releases:  ashlar history")
	}
	if err != nil {
		return stored, release.Release{}, fmt.Errorf("read release %s: %w", d, err)
	}
	e.mu.Lock()
	rel, known := e.parsed[d]
	e.mu.Unlock()
	if known {
		return stored, rel, nil
	}
	if rel, err = release.Parse(stored.Doc); err != nil {
		return stored, rel, err
	}
	e.remember(d, rel)
	return stored, rel, nil
}

func (e *Engine) remember(d digest.Digest, rel release.Release) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.parsed) >= keptReleases {
		clear(e.parsed)
	}
	e.parsed[d] = rel
}

// platform finds the platform of an environment; nil without an error if nothing
// was ever asked of it.
func (e *Engine) platform(s rollout.State) (Platform, error) {
	if s.Platform == "" {
		return nil, nil
	}
	p := e.Platforms[s.Platform]
	if p == nil {
		return nil, fault.New(fault.Invalid, "platform %q is not known to this server", s.Platform).Mend("write  platform: local")
	}
	return p, nil
}

// forget drops what is remembered of instances that are gone.
func (m *memory) forget(s rollout.State) {
	ordered := make(map[string]bool, len(s.Instances))
	specs := map[digest.Digest]bool{}
	for _, o := range s.Instances {
		ordered[o.ID], specs[o.Spec] = true, true
	}
	for id := range m.attempts {
		if !ordered[id] {
			delete(m.attempts, id)
		}
	}
	for d := range m.specs {
		if !specs[d] {
			delete(m.specs, d)
		}
	}
}

// commit replaces the state and appends what the events tell, in one transaction, after
// what they were judged by was kept.
func (e *Engine) commit(ctx context.Context, now time.Time, actor string, key Key, version int64, next rollout.State, events []rollout.Event) error {
	for _, ev := range events {
		if err := e.keep(ctx, ev.Release, ev.Facts); err != nil {
			return err
		}
	}
	_, err := e.Store.Commit(ctx, key, version, next, entries(now, actor, next, events))
	return err
}

// entries turns a decision's events into entries of the record.
func entries(now time.Time, actor string, s rollout.State, events []rollout.Event) []record.Entry {
	out := make([]record.Entry, len(events))
	for i, ev := range events {
		out[i] = record.Entry{
			Time: now.UTC(), Actor: actor, Kind: ev.Kind, App: s.App, Env: s.Env, Release: ev.Release,
			Rollout: ev.Rollout, Instance: ev.Instance, Reason: ev.Reason, Data: ev.Data,
		}
	}
	return out
}
