package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/event"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/nft"
	"github.com/ashlar-infra/ashlar/internal/notary"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/router"
	"github.com/ashlar-infra/ashlar/internal/store"
	"github.com/ashlar-infra/ashlar/internal/summary"
	"github.com/ashlar-infra/ashlar/internal/trustroot"
)

// server is everything that `ashlar server` holds.
type server struct {
	dir, runDir string
	began       time.Time
	host        string
	log         *slog.Logger
	store       *store.Store
	objects     *object.Store
	secrets     *secrets
	router      *routerProcess
	routerPID   int
	kernel      *nft.Router
	platform    *local.Platform
	have        *artifacts
	engine      *engine.Engine
	courier     *event.Courier
	garbage     *garbage
	notary      *notary.Notary
	trust       *trustroot.File
	judges      *judges
	deployer    *deployer
	summaries   *summary.Summaries
	logListen   string
	endings     chan ending
}

// ending is a request to end.
type ending struct {
	actor string
	api.EndRequest
}

// serve runs a server until ctx ends or it is asked to end.
func serve(ctx context.Context, q cli.ServeRequest, stderr io.Writer) (err error) {
	forService(serverPercent)
	log := logger(stderr, q.Log)
	if err := os.MkdirAll(q.Dir, 0o755); err != nil {
		return fault.New(fault.Unavailable, "make the state directory: %w", err).At(q.Dir).Mend("run as root, or choose another with --dir")
	}
	unlock, err := store.Lock(ctx, q.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := open(ctx, q, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close(), s.objects.Close()) }()
	return s.run(ctx)
}

// open wires the adapters: the one place that names them.
func open(ctx context.Context, q cli.ServeRequest, log *slog.Logger) (_ *server, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	s := &server{trust: trustroot.New(q.Dir), dir: q.Dir, runDir: q.RunDir, began: time.Now(), host: host, log: log, endings: make(chan ending, 1), logListen: q.Notary.Listen, deployer: &deployer{DeployerOptions: q.Deployer}}
	if q.Deployer.Key != "" { // who names one has it used, or hears at once why not
		if _, err := s.deployer.key(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(s.runDir, 0o755); err != nil {
		return nil, fault.New(fault.Unavailable, "make the run directory: %w", err).At(s.runDir).Mend("run as root, or choose another with --dir")
	}
	var opened []func() error // the last first
	defer func() {
		if err != nil {
			for _, close := range slices.Backward(opened) {
				err = errors.Join(err, close())
			}
		}
	}()
	if s.objects, err = object.Open(s.dir); err != nil {
		return nil, err
	}
	opened = append(opened, s.objects.Close)
	if s.store, err = store.Open(ctx, filepath.Join(s.dir, "ashlar.db")); err != nil {
		return nil, err
	}
	opened = append(opened, s.store.Close)
	if s.notary, err = openNotary(ctx, q, host, s.store, log); err != nil {
		return nil, err
	}
	if s.secrets, err = openSecrets(ctx, s.dir, q.SecretIdentity, s.store); err != nil {
		return nil, err
	}
	if err = s.openPlatform(ctx, q); err != nil {
		return nil, err
	}
	opened = append(opened, func() error { return s.closePlatform(ctx) })
	s.router = &routerProcess{runDir: s.runDir, logFile: filepath.Join(s.dir, "logs", "router.log"), client: router.Dial(s.runDir), version: version, acme: filepath.Join(s.dir, "acme"), metrics: q.RouterMetrics, log: log, started: s.routerStarted}
	if s.routerPID, err = s.router.ensure(ctx); err != nil {
		return nil, err
	}
	s.have = newArtifacts(s.objects, s.secrets.holds)
	s.garbage = &garbage{dir: s.dir, store: s.store, objects: s.objects, artifacts: s.have, secrets: s.secrets, log: log}
	s.secrets.garbage = s.garbage
	s.judges = newJudges(s.store, s.objects, s.trust.Chain, s.recordPushed)
	s.engine = engine.New(engine.Config{
		Admitter: s.judges, Store: s.store, Platforms: map[string]engine.Platform{"local": s.platform}, Router: routes{s.router.client, s.kernel}, Artifacts: s.have, Metrics: metrics{s.secrets.values.Newest}, Log: log,
	})
	s.courier = s.newCourier()
	s.summaries = s.newSummaries()
	return s, nil
}

// openPlatform opens what runs instances here, and the kernel's routes to them.
func (s *server) openPlatform(ctx context.Context, q cli.ServeRequest) error {
	bridge, err := local.Bridge(s.runDir)
	if err != nil {
		return err
	}
	if s.kernel, err = nft.New(nft.Config{Dir: s.dir, Bridge: bridge, Log: s.log}); err != nil {
		return err
	}
	runc, shim := programs(q.Runc, q.Shim)
	s.platform, err = local.New(ctx, local.Config{
		RunDir: s.runDir, LogDir: filepath.Join(s.dir, "logs"), Objects: s.objects.Path(), Runc: runc, Shim: shim, Log: s.log,
		Secrets: s.secrets.values.Get, VolumeDir: filepath.Join(s.dir, "volumes"),
		Beyond: nft.Pool, Peers: (&peers{store: s.store, kernel: s.kernel, log: s.log}).of,
	})
	if err != nil {
		return errors.Join(err, s.kernel.Close(ctx))
	}
	return nil
}

func (s *server) closePlatform(ctx context.Context) error {
	return errors.Join(s.kernel.Close(ctx), s.platform.Close(ctx))
}

// run serves until ctx ends, somebody asks to end, or a part fails.
func (s *server) run(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return errors.Join(err, s.closePlatform(ctx))
	}
	told, _, err := s.store.Head(ctx) // before the engine runs: what it does is to be told
	if err != nil {
		return errors.Join(err, s.closePlatform(ctx))
	}
	socket, err := api.Listen(s.runDir)
	if err != nil {
		return errors.Join(err, s.closePlatform(ctx))
	}
	logSocket, err := listenLog(s.logListen)
	if err != nil {
		return errors.Join(err, socket.Close(), s.closePlatform(ctx))
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return s.api().Serve(running, socket) })
	g.Go(func() error { return quiet(s.engine.Run(running, time.Now)) })
	g.Go(func() error { s.router.keep(running, s.routerPID, s.wakeAll); return nil })
	g.Go(func() error { return quiet(s.narrate(running, told)) })
	g.Go(func() error { return quiet(s.courier.Run(running)) })
	g.Go(func() error { return quiet(s.notary.Run(running, s.store.Appended)) })
	g.Go(func() error { return quiet(s.summaries.Run(running)) })
	if logSocket != nil {
		g.Go(func() error { return serveLog(running, logSocket, s.notary.Handler(), s.log) })
	}
	s.log.Info("server serves", "socket", api.SocketPath(s.runDir), "dir", s.dir, "pid", os.Getpid(), "version", version)

	end := ending{actor: engine.Actor}
	select {
	case <-running.Done():
	case end = <-s.endings:
	}
	stop()
	return errors.Join(g.Wait(), s.finish(context.WithoutCancel(ctx), end))
}

// quiet makes the end of a context no error.
func quiet(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// begin records that the server is there, and which rollouts it goes on with.
func (s *server) begin(ctx context.Context) error {
	keys, err := s.store.Environments(ctx)
	if err != nil {
		return err
	}
	entries := []record.Entry{s.entry("server.started", engine.Key{}, "", map[string]string{"pid": strconv.Itoa(os.Getpid()), "version": version})}
	for _, key := range keys {
		state, _, err := s.store.State(ctx, key)
		if err != nil {
			return err
		}
		r := state.Rollout
		if r == nil {
			continue
		}
		e := s.entry("rollout.resumed", key, fmt.Sprintf("the server is back; the %s of release %d was at the step %s", r.Kind, r.To.Number, r.Step), nil)
		e.Rollout, e.Release = r.Number, r.To.Release
		entries = append(entries, e)
		s.log.Info("rollout resumed", "env", key.String(), "rollout", r.Number, "release", r.To.Number, "step", string(r.Step))
	}
	return s.store.Append(ctx, entries)
}

func (s *server) entry(kind string, key engine.Key, reason string, data map[string]string) record.Entry {
	return record.Entry{Time: time.Now().UTC(), Actor: engine.Actor, Kind: kind, App: key.App, Env: key.Env, Reason: reason, Data: data}
}

// finish is the end of a server. Instances and router go on, unless everything
// was asked to end.
func (s *server) finish(ctx context.Context, end ending) error {
	var errs []error
	why := "instances and router go on"
	if end.Router {
		why = "the router ended too"
		errs = append(errs, s.router.end(ctx))
	}
	e := s.entry("server.stopped", engine.Key{}, why, nil)
	e.Actor = end.actor
	errs = append(errs, s.store.Append(ctx, []record.Entry{e}), s.judges.process.Close(), s.notary.Close(ctx), s.closePlatform(ctx))
	if err := os.Remove(api.SocketPath(s.runDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	s.log.Info("server ends: " + why)
	return errors.Join(errs...)
}

// routerStarted records that there is another router.
func (s *server) routerStarted(pid int) {
	e := s.entry("router.started", engine.Key{}, "", map[string]string{"pid": strconv.Itoa(pid)})
	if err := s.store.Append(context.Background(), []record.Entry{e}); err != nil {
		s.log.Error("cannot record the start of the router", "err", err)
	}
}

func (s *server) wakeAll() {
	keys, err := s.store.Environments(context.Background())
	if err != nil {
		return // the engine looks by itself, a little later
	}
	for _, key := range keys {
		s.engine.Wake(key)
	}
}

// narrate tells the steps of rollouts in the server's log, from the record's entry from on.
func (s *server) narrate(ctx context.Context, from int64) error {
	for {
		appended := s.store.Appended()
		entries, err := s.store.Entries(ctx, engine.Key{}, from, -1)
		if err != nil {
			return err
		}
		for _, e := range entries {
			from = e.Index + 1
			level := slog.LevelDebug
			if strings.HasPrefix(e.Kind, "rollout.") || e.Kind == "instance.failed" || e.Kind == "release.live" {
				level = slog.LevelInfo
			}
			s.log.Log(ctx, level, e.Kind, "env", e.App+"/"+e.Env, "rollout", e.Rollout, "instance", e.Instance, "why", e.Reason)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-appended:
		}
	}
}

func (s *server) api() *api.Server {
	return api.NewServer(api.Config{
		Engine: s.engine, Store: s.store, Log: s.log, Now: time.Now, Host: s.host,
		Ahead:     s.ahead,
		Hold:      s.objects.Share,
		VerifyLog: s.store.VerifyRecord,
		Notary:    s.notary,
		Trust:     s.trust,
		Deployer:  s.deployer.id,
		Policies:  s.store,
		Admission: s.judges,

		AppendStatements: s.store.AppendStatements,
		Output:           s.output,
		GC:               s.garbage.collect,
		Secrets:          s.secrets,
		Doctor:           s.doctor,
		Troubles:         s.courier.Troubles,
		Version: func() api.Version {
			return api.Version{Version: version, PID: os.Getpid(), Started: s.began, Dir: s.dir, RSS: residentSet()}
		},
		End: func(actor string, q api.EndRequest) {
			select {
			case s.endings <- ending{actor, q}:
			default: // it ends already
			}
		},
	})
}

func (s *server) output(ctx context.Context, q api.OutputQuery, emit func(api.OutputLine) error) error {
	lines := s.platform.Logs(ctx, local.Query{
		Env: rollout.Key{App: q.App, Env: q.Env}, ID: q.Instance, Component: q.Component, Tail: q.Tail, Follow: q.Follow,
	})
	for l, err := range lines {
		if err != nil {
			return err
		}
		if err := emit(api.OutputLine{Instance: l.ID, Time: l.At, Stream: l.Stream, Text: l.Text, Partial: l.Partial}); err != nil {
			return err
		}
	}
	return ctx.Err()
}
