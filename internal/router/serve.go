package router

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Config says where a router lives and how it treats its clients. Zero values
// mean the defaults named.
type Config struct {
	RunDir   string        // holds router.sock, router.json and router.lock; made if missing
	Log      *slog.Logger  // nil: nothing is logged
	Version  string        // reported by Health
	Grace    time.Duration // how long requests may finish after ctx ends; default 10s
	MaxHeld  int           // requests waiting for a backend at one time; default 4096
	ACMEDir  string        // keeps accounts and certificates got by ACME; default "acme" in RunDir
	TakeOver bool          // take over from the router that runs there, if one does
	Metrics  string        // loopback address for Prometheus; empty: metrics are on the control socket alone
}

// router is the running data plane.
type router struct {
	log     *slog.Logger
	runDir  string
	acmeDir string
	version string
	grace   time.Duration
	maxHeld int64
	started time.Time
	closing chan struct{} // closed when the router shuts down: nothing is held any more

	lock      *os.File      // makes this router the only one of its directory
	socket    net.Listener  // control
	scrapes   *http.Server  // metrics; nil: none
	handed    chan net.Conn // gets the connection to the router that took over
	retiring  atomic.Bool   // another router took over: this one accepts nothing any more
	told      atomic.Int64  // how often that one has asked for everything
	before    before
	inherited map[string]net.Listener // open addresses of the router before, until they are used

	current   atomic.Pointer[snapshot]
	clients   atomic.Int64 // connections of clients, but for upgraded ones
	held      atomic.Int64 // requests waiting for a backend
	active    atomic.Int64 // requests anywhere in the router
	exchanges sync.Pool

	mu         sync.Mutex // serialises everything below and the swap of current
	envs       map[rollout.Key]*environment
	saved      map[rollout.Key][]byte // what router.json holds: tables as they came
	listeners  map[string]*listener
	identities map[string]*identity // by listen address
	issuers    map[string]*issuer   // by ACME directory
	warned     map[string]bool      // addresses that could not be opened, and the log says so
}

// environment is what the router remembers of one environment.
type environment struct {
	table    rollout.Table
	backends map[string]*backend // of table, by ID
	leaving  []*backend          // left, and may still have requests
	counters map[string]*counters
	traffic  map[string]*traffic // by rollout.TrafficKey
	cuts     map[string]cut      // what was cut lately, by backend ID
	cutTotal rollout.Flight      // everything that was cut
}

// cutsKept is how long it is told which backend's requests were cut.
const cutsKept = 10 * time.Minute

// cut is what was cut of one backend because its drain time was over.
type cut struct {
	rollout.Flight
	at time.Time
}

// Serve runs the data plane until ctx ends, then lets requests under way finish
// within Config.Grace; or until it has handed over to another router and what it had
// is done. It returns nil after such ends. There is one router per run directory: a
// second one gets a Conflict fault, unless it takes over.
func Serve(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil {
		return fault.New(fault.Unavailable, "cannot make the run directory: %w", err).At(cfg.RunDir)
	}
	if err := checkMetrics(cfg.Metrics); err != nil {
		return err
	}
	r := newRouter(cfg)
	if cfg.TakeOver {
		in, err := inherit(ctx, cfg.RunDir)
		if err != nil {
			return err
		}
		if in != nil {
			return r.succeed(ctx, cfg, in)
		}
	}
	return r.begin(ctx, cfg)
}

// begin is the start where no other router is.
func (r *router) begin(ctx context.Context, cfg Config) (err error) {
	if r.lock, err = lockFile(cfg.RunDir); err != nil {
		return err
	}
	defer r.lock.Close() //nolint:errcheck // closing gives the lock back
	if err := r.restore(); err != nil {
		return err
	}
	r.reopen(ctx)
	if r.socket, err = listenControl(cfg.RunDir); err == nil {
		err = r.serveMetrics(ctx, cfg.Metrics)
	}
	if err != nil {
		r.shutdown(0)
		return err
	}
	return r.run(ctx)
}

// succeed is the start with what the router before this one had open.
func (r *router) succeed(ctx context.Context, cfg Config, in *inheritance) error {
	r.lock, r.socket, r.inherited = in.lock, in.control, in.listen
	if err := r.restore(); err != nil {
		in.abandon()
		return err
	}
	if err := in.commit(); err != nil {
		return err
	}
	defer r.lock.Close() //nolint:errcheck // closing gives the lock back
	r.reopen(ctx)
	for addr, l := range r.inherited {
		l.Close() //nolint:errcheck // no table has it
		delete(r.inherited, addr)
	}
	r.before.take(in.conn, r.log)
	r.log.Info("took over", "from", r.before.processes(), "environments", len(r.envs))
	if err := r.serveMetrics(ctx, cfg.Metrics); err != nil {
		r.log.Error("no metrics", "err", err) // requests are worth more
	}
	return r.run(ctx)
}

func newRouter(cfg Config) *router {
	r := &router{
		log: cfg.Log, runDir: cfg.RunDir, acmeDir: cfg.ACMEDir, version: cfg.Version, grace: cfg.Grace, maxHeld: int64(cfg.MaxHeld),
		started: time.Now(), closing: make(chan struct{}), handed: make(chan net.Conn, 1),
		envs: map[rollout.Key]*environment{}, saved: map[rollout.Key][]byte{}, listeners: map[string]*listener{}, issuers: map[string]*issuer{}, warned: map[string]bool{},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.acmeDir == "" {
		r.acmeDir = filepath.Join(cfg.RunDir, "acme")
	}
	if r.grace == 0 {
		r.grace = 10 * time.Second
	}
	if r.maxHeld == 0 {
		r.maxHeld = 4096
	}
	r.exchanges.New = func() any { return newExchange(r) }
	r.current.Store(newSnapshot(nil))
	return r
}

// run serves the control socket and looks after addresses that could not be
// opened, until ctx ends or another router has taken over.
func (r *router) run(ctx context.Context) error {
	control := &http.Server{Handler: r.control(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: debugLog(r.log)}
	r.log.Info("router serves", "socket", socketPath(r.runDir), "environments", len(r.envs))
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(r.socket) }()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.reopen(ctx)
			r.reread(now)
			r.closeIdle(now.Add(-idleTimeout))
			r.before.refresh()
		case conn := <-r.handed:
			control.Close() //nolint:errcheck // who asked just now asks again
			return r.follow(ctx, conn)
		case <-ctx.Done():
			r.log.Info("router ends", "grace", r.grace)
			r.end()
			return control.Close()
		case err := <-ended:
			if r.retiring.Load() {
				ended = nil // its socket was handed over
				continue
			}
			r.end()
			return fault.New(fault.Unavailable, "the control socket failed: %w", err).At(socketPath(r.runDir))
		}
	}
}

// end is the end without a successor.
func (r *router) end() {
	r.before.end()
	os.Remove(socketPath(r.runDir)) //nolint:errcheck // the next router replaces it anyway
	if r.scrapes != nil {
		r.scrapes.Close() //nolint:errcheck // scrapes are not worth waiting for
	}
	r.shutdown(r.grace)
}

// shutdown stops accepting, lets requests finish within grace and cuts the rest.
func (r *router) shutdown(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	r.mu.Lock()
	open := r.listeners
	r.listeners = map[string]*listener{}
	close(r.closing)
	r.mu.Unlock()

	var wg sync.WaitGroup
	for _, l := range open {
		wg.Go(func() { l.drain(ctx) })
	}
	wg.Wait()
	r.awaitIdle(ctx)

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, env := range r.envs {
		for _, b := range env.backends {
			b.cut(allKinds)
		}
		for _, b := range env.leaving {
			b.forget()
		}
	}
}

// closeIdle closes connections to backends that were not used since.
func (r *router) closeIdle(since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, env := range r.envs {
		for _, b := range env.backends {
			b.closeIdle(since)
		}
	}
}

// ending reports whether shutdown has begun.
func (r *router) ending() bool {
	select {
	case <-r.closing:
		return true
	default:
		return false
	}
}

// awaitIdle waits for the requests that http.Server.Shutdown does not know of:
// upgraded connections.
func (r *router) awaitIdle(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for r.active.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
