package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/sim"
)

var (
	key      = engine.Key{App: "shop", Env: "prod"}
	midnight = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
)

// world is an outside that does at once what it is asked, unless fail or block has
// an entry for the call. It is one value for all ports, so that calls has the order
// of everything.
type world struct {
	mu      sync.Mutex
	store   *sim.Store
	units   map[string]rollout.Observed
	table   map[engine.Key]rollout.Table
	phase   rollout.Phase // of what is started
	changed chan struct{}
	calls   []string
	fail    map[string]error                          // by how the call begins: "list", "commit", "start web-1", ...
	block   func(ctx context.Context, env engine.Key) // in List, without the lock
}

func newWorld() *world {
	return &world{
		store: sim.NewStore(), units: map[string]rollout.Observed{}, table: map[engine.Key]rollout.Table{},
		phase: rollout.Ready, changed: make(chan struct{}, 1), fail: map[string]error{},
	}
}

func (w *world) engine(alter ...func(*engine.Config)) *engine.Engine {
	c := engine.Config{
		Store: store{w}, Platforms: map[string]engine.Platform{"local": platform{w}}, Router: router{w},
		Artifacts: artifacts{w}, Log: slog.New(slog.DiscardHandler),
	}
	for _, a := range alter {
		a(&c)
	}
	return engine.New(c)
}

// call notes a call and says how it ends.
func (w *world) call(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	w.calls = append(w.calls, call)
	for name, err := range w.fail {
		if strings.HasPrefix(call, name) {
			return err
		}
	}
	return nil
}

// set changes how calls end; nil: as they should.
func (w *world) set(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.fail, name)
	if err != nil {
		w.fail[name] = err
	}
}

// took gives the calls since the last took.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

type store struct{ w *world }

func (s store) State(ctx context.Context, env engine.Key) (rollout.State, int64, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if err := s.w.fail["state"]; err != nil {
		return rollout.State{}, 0, err
	}
	return s.w.store.State(ctx, env)
}

func (s store) Commit(ctx context.Context, env engine.Key, version int64, next rollout.State, entries []record.Entry) (int64, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if err := s.w.call("commit"); err != nil {
		if errors.Is(err, errLost) {
			_, _ = s.w.store.Commit(ctx, env, version, next, entries)
		}
		return 0, err
	}
	return s.w.store.Commit(ctx, env, version, next, entries)
}

func (s store) AddRelease(ctx context.Context, rel engine.Stored, entry record.Entry) (engine.Stored, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.store.AddRelease(ctx, rel, entry)
}

func (s store) Release(ctx context.Context, d digest.Digest) (engine.Stored, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.store.Release(ctx, d)
}

func (s store) Releases(ctx context.Context, app string) ([]engine.Stored, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.store.Releases(ctx, app)
}

func (s store) Environments(ctx context.Context) ([]engine.Key, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if err := s.w.fail["environments"]; err != nil {
		return nil, err
	}
	return s.w.store.Environments(ctx)
}

func (s store) Append(ctx context.Context, entries []record.Entry) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.store.Append(ctx, entries)
}

func (s store) Entries(ctx context.Context, env engine.Key, from, to int64) ([]record.Entry, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.store.Entries(ctx, env, from, to)
}

type platform struct{ w *world }

func (p platform) Start(_ context.Context, env engine.Key, in rollout.Instance, spec release.Spec) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if err := p.w.call("start %s", in.ID); err != nil {
		return err
	}
	if _, there := p.w.units[in.ID]; !there {
		p.w.units[in.ID] = rollout.Observed{
			ID: in.ID, Component: in.Component, Release: in.Release, Spec: in.Spec,
			Phase: p.w.phase, Address: in.ID + ":" + spec.Command[0], StartedAt: midnight,
		}
	}
	return nil
}

func (p platform) Stop(_ context.Context, id string) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	err := p.w.call("stop %s", id)
	if u, there := p.w.units[id]; there && err == nil {
		u.Phase = rollout.Exited
		p.w.units[id] = u
	}
	return err
}

func (p platform) Remove(_ context.Context, id string) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	err := p.w.call("remove %s", id)
	if err == nil {
		delete(p.w.units, id)
	}
	return err
}

func (p platform) List(ctx context.Context, env engine.Key) ([]rollout.Observed, error) {
	p.w.mu.Lock()
	block := p.w.block
	p.w.mu.Unlock()
	if block != nil {
		block(ctx, env)
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if err := p.w.call("list %s", env); err != nil {
		return nil, err
	}
	var out []rollout.Observed
	for _, id := range slices.Sorted(maps.Keys(p.w.units)) {
		if strings.HasPrefix(id, env.App+"-"+env.Env+"-") {
			out = append(out, p.w.units[id])
		}
	}
	return out, nil
}

func (p platform) Changes() <-chan struct{} { return p.w.changed }

type router struct{ w *world }

func (r router) Apply(_ context.Context, env engine.Key, t rollout.Table) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	err := r.w.call("route %s", t)
	if err == nil {
		r.w.table[env] = t
	}
	return err
}

func (r router) Status(_ context.Context, env engine.Key) (rollout.RouterStatus, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if err := r.w.fail["status"]; err != nil {
		return rollout.RouterStatus{}, err
	}
	return rollout.RouterStatus{Generation: r.w.table[env].Generation}, nil
}

type artifacts struct{ w *world }

func (a artifacts) Check(context.Context, release.Spec) error { return a.w.fail["check"] }

var (
	errLost   = errors.New("the reply was lost")
	errBroken = errors.New("no answer")
)

// shop is a release of two instances of web; version makes it another one.
func shop(version string) release.Release {
	spec := release.Spec{
		Artifact: digest.FromString("artifact " + version), Tree: digest.FromString("tree " + version), Settings: digest.FromString("settings"),
		Command: []string{"/web"}, WorkDir: "/", UID: 1000, GID: 1000, Port: 8080, Env: map[string]string{"VERSION": version},
		StopSignal: "SIGTERM", StopGraceMS: 5000,
		Health: &release.Health{HTTP: "/", IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 1, StartMS: 3000},
	}
	return release.Release{Schema: release.Schema, App: key.App, Environments: map[string]release.Environment{
		key.Env: {Platform: "local", Rollout: release.Rollout{Strategy: "blue-green"}, Listen: "127.0.0.1:80", Keep: 3, Components: map[string]release.Component{
			"web": {Spec: spec, Replicas: 2, DrainMS: 1000, Route: &release.Route{Path: "/", HoldMS: 1000}},
		}},
	}}
}

func add(t *testing.T, e *engine.Engine, rel release.Release) engine.Stored {
	t.Helper()
	stored, err := e.AddRelease(t.Context(), midnight, "dana", rel)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// deploy begins a rollout to a release that is added first.
func deploy(t *testing.T, e *engine.Engine, version string) engine.Stored {
	t.Helper()
	stored := add(t, e, shop(version))
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, stored.Digest, engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	return stored
}

// settle ticks until there is nothing left to do.
func settle(t *testing.T, e *engine.Engine) {
	t.Helper()
	for range 100 {
		ticked, err := e.Tick(t.Context(), midnight, key)
		if err != nil {
			t.Fatal(err)
		}
		if !ticked.Busy {
			return
		}
	}
	t.Fatal("100 steps and still busy")
}

// live deploys a release and lets it become live.
func live(t *testing.T, e *engine.Engine, version string) engine.Stored {
	t.Helper()
	stored := deploy(t, e, version)
	settle(t, e)
	if s := state(t, e); s.Current == nil || s.Current.Release != stored.Digest || s.Rollout != nil {
		t.Fatalf("release %d is not live: %+v", stored.Number, s.LastResult)
	}
	return stored
}

func state(t *testing.T, e *engine.Engine) rollout.State {
	t.Helper()
	s, _, err := e.Store.State(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantKind checks the fault that a user would meet.
func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	switch f := fault.Of(err); {
	case err == nil:
		t.Fatalf("no error, want one of kind %s", kind)
	case f.Kind != kind:
		t.Fatalf("%s of kind %s, want %s", f.What, f.Kind, kind)
	}
}
