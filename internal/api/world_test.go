package api_test

import (
	"context"
	"log/slog"
	"os/user"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/notary"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/store"
	"github.com/ashlar-infra/ashlar/internal/trustroot"
)

// platform runs instances that are ready at once, or exit at once when their
// command says so.
type platform struct {
	mu      sync.Mutex
	in      map[string]rollout.Observed
	changed chan struct{}
}

func (p *platform) Start(_ context.Context, _ engine.Key, in rollout.Instance, spec release.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := rollout.Observed{ID: in.ID, Component: in.Component, Release: in.Release, Spec: in.Spec, Phase: rollout.Ready, Address: "127.0.0.1:1", StartedAt: time.Now()}
	if spec.Command[0] == "/bad" {
		o.Phase, o.Exit, o.Tail = rollout.Exited, &rollout.Exit{Code: 3}, []string{"no such flag"}
	}
	p.in[in.ID] = o
	p.signal()
	return nil
}

func (p *platform) Stop(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o, ok := p.in[id]; ok {
		o.Phase = rollout.Exited
		p.in[id] = o
	}
	p.signal()
	return nil
}

func (p *platform) Remove(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.in, id)
	p.signal()
	return nil
}

func (p *platform) List(context.Context, engine.Key) ([]rollout.Observed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []rollout.Observed
	for _, o := range p.in {
		out = append(out, o)
	}
	return out, nil
}

func (p *platform) Changes() <-chan struct{} { return p.changed }

func (p *platform) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// router acknowledges every table.
type router struct {
	mu    sync.Mutex
	table rollout.Table
}

func (r *router) Apply(_ context.Context, _ engine.Key, t rollout.Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = t
	return nil
}

func (r *router) Status(context.Context, engine.Key) (rollout.RouterStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return rollout.RouterStatus{Generation: r.table.Generation}, nil
}

type artifacts struct{}

func (artifacts) Check(_ context.Context, s release.Spec) error {
	if s.WorkDir == "/lost" {
		return fault.New(fault.Refused, "a file is lost")
	}
	return nil
}

// world is a server on a real socket and a real store, over a made-up machine.
type world struct {
	*api.Client
	dir   string
	store *store.Store
	ended chan api.EndRequest
	ahead chan aheadCall
	holds chan struct{} // one for each time that gc was held off
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := store.Open(ctx, filepath.Join(dir, "ashlar.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Client: api.Dial(dir, dir), dir: dir, store: s, ended: make(chan api.EndRequest, 1), holds: make(chan struct{}, 100), ahead: make(chan aheadCall, 100)}
	log := slog.New(slog.DiscardHandler)
	p := &platform{in: map[string]rollout.Observed{}, changed: make(chan struct{}, 1)}
	e := engine.New(engine.Config{Store: s, Platforms: map[string]engine.Platform{"local": p}, Router: &router{}, Artifacts: artifacts{}, Log: log})
	n, err := notary.Open(ctx, notary.Config{Dir: dir, Host: "host", Record: s, Now: time.Now, Log: log, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(api.Config{
		Notary: n, AppendStatements: s.AppendStatements, Trust: trustroot.New(dir), Policies: s,
		Engine: e, Store: s, Log: log, Now: time.Now, Host: "host", VerifyLog: s.VerifyRecord,
		Ahead: func(key engine.Key, rel *release.Release) { w.ahead <- aheadCall{key, rel} },
		Hold:  func(context.Context) (func(), error) { w.holds <- struct{}{}; return func() {}, nil },
		Output: func(_ context.Context, q api.OutputQuery, emit func(api.OutputLine) error) error {
			if err := emit(api.OutputLine{Instance: "web-1", Text: "hello " + q.Component}); err != nil {
				return err
			}
			if q.Instance == "gone" {
				return fault.New(fault.NotFound, "instance gone left no output")
			}
			return nil
		},
		GC: func(_ context.Context, actor string, q api.GCRequest) (api.GCReport, error) {
			return api.GCReport{DryRun: q.DryRun}, nil
		},
		Doctor:  func(context.Context) []api.Check { return []api.Check{{Name: "all", OK: true}} },
		Version: func() api.Version { return api.Version{Version: "test"} },
		End:     func(_ string, q api.EndRequest) { w.ended <- q },
	})
	socket, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, socket); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { _ = e.Run(ctx, time.Now) }) // ends with ctx
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func me(t *testing.T) string {
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username + "@host"
}

// shop is a release whose instances run the command.
func shop(t *testing.T, command string, replicas int) []byte {
	t.Helper()
	d := digest.FromString("some object")
	rel := release.Release{Schema: release.Schema, App: "shop", Environments: map[string]release.Environment{
		"production": {Platform: "local", Rollout: release.Rollout{Strategy: "blue-green"}, Listen: "127.0.0.1:8080", Keep: 5, Components: map[string]release.Component{
			"web": {Replicas: replicas, Route: &release.Route{Path: "/"}, Spec: release.Spec{
				Artifact: d, Tree: d, Settings: d, Command: []string{command}, WorkDir: "/", Port: 80, StopSignal: "SIGTERM",
			}},
		}},
	}}
	doc, err := rel.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// aheadCall is what Config.Ahead was told.
type aheadCall struct {
	key engine.Key
	rel *release.Release
}
