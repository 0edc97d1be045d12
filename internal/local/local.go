package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Config says where a Platform keeps its things. RunDir, LogDir, Objects, Runc and
// Shim are required.
type Config struct {
	RunDir  string       // R; a server has one of its own
	LogDir  string       // output goes to LogDir/<app>/<env>/<instance>.log
	Objects string       // the object store's data layer, which also holds the seals
	Runc    string       // path of the OCI runtime
	Shim    string       // path of ashlar-shim
	Subnet  netip.Prefix // of the bridge; zero: a free /20 of 10.213.0.0/16
	Beyond  netip.Prefix // what instances reach through the bridge beside its subnet: the stable addresses of services; zero: nothing
	// Peers gives the services of an environment that an instance can call by name; nil: none.
	Peers func(rollout.Key) map[string]netip.Addr
	// Secrets gives the value of one version of a secret; nil: there are none.
	Secrets   func(context.Context, rollout.Key, release.Secret) ([]byte, error)
	VolumeDir string // where volumes are; empty: there are none
	Log       *slog.Logger
	Now       func() time.Time // default time.Now

	LogSize  int64 // bytes of one output file before it is rotated; default 8 MiB
	LogFiles int   // output files per instance, the current one included; default 3
	KeepLogs int   // outputs of removed instances that are kept per environment; default 10

	patience   time.Duration         // how long what Expect made waits to be used; default 20 s
	reserve    time.Duration         // how long shims for another change lie ready after one; default 10 min, negative: none do
	memoryLeft func() (int64, error) // bytes that programs can have; default the host's
	shimLimit  time.Duration         // how long a shim may take for its part of a removal; default 10 s
}

// Platform runs instances on this host. Its methods are safe for concurrent use.
type Platform struct {
	cfg     Config
	server  string   // short name of this server on this host, from RunDir
	runc    *os.File // the runtime, see inMemory
	network *network
	changes chan struct{}
	ctx     context.Context // of everything that watches; ended by Close
	cancel  context.CancelFunc
	watches sync.WaitGroup

	mu        sync.Mutex
	instances map[string]*instance
	fences    sync.Mutex // held while a fencing token is compared and noted

	ahead ahead
}

// New opens the run directory and adopts the instances that are there.
func New(ctx context.Context, cfg Config) (*Platform, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &Platform{
		cfg:       cfg,
		server:    serverName(cfg.RunDir),
		changes:   make(chan struct{}, 1),
		instances: map[string]*instance{},
		ahead:     ahead{prepared: map[string]*prepared{}, sooner: make(chan struct{}, 1)},
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, dir := range []string{p.instancesDir(), p.blanksDir(), p.privateDir(), p.runcRoot()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.New(fault.Unavailable, "make the run directory: %w", err).At(dir)
		}
	}
	var err error
	if p.network, err = openNetwork(cfg.RunDir, "ash-"+p.server, cfg.Subnet); err != nil {
		return nil, err
	}
	p.network.beyond = cfg.Beyond
	if p.runc, err = inMemory(cfg.Runc); err != nil {
		return nil, fault.New(fault.Unavailable, "read the runtime: %w", err).At(cfg.Runc)
	}
	if err := p.adopt(ctx); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return p, nil
}

func (c *Config) complete() error {
	var err error
	for _, path := range []*string{&c.RunDir, &c.LogDir, &c.Objects, &c.Runc, &c.Shim} {
		if *path == "" {
			return fault.New(fault.Internal, "local platform: a directory or program is not set")
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	for _, program := range []string{c.Runc, c.Shim} {
		if err := executable(program); err != nil {
			return err
		}
	}
	if c.VolumeDir != "" {
		if c.VolumeDir, err = filepath.Abs(c.VolumeDir); err != nil {
			return err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.memoryLeft == nil {
		c.memoryLeft = memoryLeft
	}
	if c.shimLimit <= 0 {
		c.shimLimit = 10 * time.Second
	}
	if c.patience <= 0 {
		c.patience = 20 * time.Second
	}
	if c.reserve == 0 {
		c.reserve = 10 * time.Minute
	}
	if c.LogSize <= 0 {
		c.LogSize = 8 << 20
	}
	if c.LogFiles <= 0 {
		c.LogFiles = 3
	}
	if c.KeepLogs <= 0 {
		c.KeepLogs = 10
	}
	return nil
}

func executable(program string) error {
	info, err := os.Stat(program)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Unavailable, "%s is not there", filepath.Base(program)).At(program).
			Mend("run  make build  or name its place, see  ashlar doctor")
	case err != nil:
		return fault.New(fault.Unavailable, "look at %s: %w", filepath.Base(program), err).At(program)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return fault.New(fault.Unavailable, "%s is not a program", filepath.Base(program)).At(program)
	}
	return nil
}

// serverName is the short name of a run directory's server on this host.
func serverName(runDir string) string {
	sum := sha256.Sum256([]byte(runDir))
	return hex.EncodeToString(sum[:3])
}

// Bridge is the name of the bridge of a run directory's server.
func Bridge(runDir string) (string, error) {
	runDir, err := filepath.Abs(runDir)
	return "ash-" + serverName(runDir), err
}

func (p *Platform) instancesDir() string         { return filepath.Join(p.cfg.RunDir, "i") }
func (p *Platform) instanceDir(id string) string { return filepath.Join(p.instancesDir(), id) }
func (p *Platform) runcRoot() string             { return filepath.Join(p.cfg.RunDir, "runc") }
func (p *Platform) cgroup(id string) string      { return filepath.Join("/ashlar", p.server, id) }
func (p *Platform) twinCgroup(id string) string  { return p.cgroup(id) + ".twin" }
func (p *Platform) logFile(k rollout.Key, id string) string {
	return filepath.Join(p.cfg.LogDir, k.App, k.Env, id+".log")
}

// Start creates and starts the instance, see engine.Platform.
func (p *Platform) Start(ctx context.Context, env rollout.Key, in rollout.Instance, spec release.Spec) error {
	if err := p.check(env, in, spec); err != nil {
		return err
	}
	if p.find(in.ID) == nil {
		if err := p.fence(env, in); err != nil {
			return err
		}
	}
	inst, pre, mine := p.claim(env, in, spec)
	if !mine {
		return inst.awaitBirth(ctx)
	}
	err := p.create(ctx, inst, pre)
	if err != nil {
		p.cfg.Log.Warn("instance not started", "instance", in.ID, "err", err)
		err = p.takeBack(ctx, inst, err)
	}
	inst.birth(err)
	if err == nil {
		p.stirred(true)
	}
	p.signal()
	return err
}

// claim makes the instance known as one that is about to be; it is not mine if it is
// known already. pre is what was prepared under its name; if it is the very
// instance, inst is that.
func (p *Platform) claim(env rollout.Key, in rollout.Instance, spec release.Spec) (inst *instance, pre *prepared, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.instances[in.ID]; known != nil {
		return known, nil, false
	}
	inst = newInstance(p, meta{Key: env, Instance: in, Spec: spec, CreatedAt: p.cfg.Now()})
	if pre = p.ahead.takePrepared(in.ID); pre != nil && pre.is(inst.meta) {
		inst = pre.instance
	}
	p.instances[in.ID] = inst
	return inst, pre, true
}

// takeBack removes an instance that could not be started. If even that fails it
// stays known, as exited, so that List reports it and Remove tries again.
func (p *Platform) takeBack(ctx context.Context, inst *instance, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	if err := p.purge(ctx, inst); err != nil {
		inst.lose("it could not be started, and not be taken away: " + err.Error())
		return fault.Of(cause).Detail("what was made of it is still there: " + err.Error())
	}
	p.forget(inst)
	return cause
}

func (p *Platform) forget(inst *instance) {
	if inst.meta.Unit != "" {
		p.network.release(inst.meta.Address)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.instances, inst.meta.Instance.ID)
}

func (p *Platform) find(id string) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.instances[id]
}

// Stop asks the instance to end, see engine.Platform.
func (p *Platform) Stop(ctx context.Context, id string) error {
	inst := p.find(id)
	if inst == nil || inst.awaitBirth(ctx) != nil {
		return ctx.Err()
	}
	return inst.stop(ctx)
}

// Remove takes everything of the instance away, see engine.Platform.
func (p *Platform) Remove(ctx context.Context, id string) error {
	inst := p.find(id)
	if inst == nil {
		return nil
	}
	if err := inst.awaitBirth(ctx); ctx.Err() != nil {
		return err
	}
	inst.removal.Lock()
	defer inst.removal.Unlock()
	if p.find(id) != inst {
		return nil // somebody else has just done it
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	if err := p.purge(ctx, inst); err != nil {
		return fault.New(fault.Internal, "take away instance %s: %w", id, err).At(p.instanceDir(id))
	}
	p.forget(inst)
	p.stirred(false)
	p.signal()
	return nil
}

// List reports every instance of the environment, see engine.Platform.
func (p *Platform) List(ctx context.Context, env rollout.Key) ([]rollout.Observed, error) {
	p.mu.Lock()
	var found []*instance
	for _, inst := range p.instances {
		if inst.meta.Key == env {
			found = append(found, inst)
		}
	}
	p.mu.Unlock()
	seen := make([]rollout.Observed, 0, len(found))
	for _, inst := range found {
		seen = append(seen, inst.observed())
	}
	return seen, ctx.Err()
}

// Changes is signalled after any instance changed phase.
func (p *Platform) Changes() <-chan struct{} { return p.changes }

func (p *Platform) signal() {
	select {
	case p.changes <- struct{}{}:
	default: // one is under way already
	}
}

// Close stops watching; the instances go on. If there is none, the bridge and the
// server's control groups go too.
func (p *Platform) Close(ctx context.Context) error {
	p.cancel()
	p.closeAhead()
	p.mu.Lock()
	left := len(p.instances)
	for _, inst := range p.instances {
		inst.unwatch()
	}
	p.mu.Unlock()
	p.watches.Wait()
	if err := p.runc.Close(); err != nil || left > 0 {
		return errors.Join(err, ctx.Err())
	}
	return errors.Join(p.network.teardown(), removeCgroups(filepath.Join("ashlar", p.server)), ctx.Err())
}

// check refuses what can be known to be impossible before anything is made.
func (p *Platform) check(env rollout.Key, in rollout.Instance, spec release.Spec) error {
	for _, name := range []string{env.App, env.Env, in.Component, in.ID} {
		if !plainName(name) {
			return fault.New(fault.Invalid, "%q cannot name an instance, its component or its environment", name)
		}
	}
	if len(spec.Command) == 0 {
		return fault.New(fault.Invalid, "component %s has no command", in.Component)
	}
	if spec.Health != nil && len(spec.Health.Exec) == 0 && spec.Port == 0 {
		return fault.New(fault.Invalid, "component %s has a health check but no port", in.Component)
	}
	if (len(spec.Volumes) > 0 || in.Fence != 0) && p.cfg.VolumeDir == "" {
		return fault.New(fault.Unavailable, "component %s has volumes, and this server has no place for them", in.Component)
	}
	if _, err := stopSignal(spec); err != nil {
		return err
	}
	if sock := filepath.Join(p.instanceDir(in.ID), "sock"); len(sock) > 107 {
		return fault.New(fault.Invalid, "the path of an instance's socket is %d bytes long, the kernel takes 107", len(sock)).
			At(sock).Mend("choose a shorter directory with --dir or ASHLAR_DIR")
	}
	return nil
}

// plainName accepts letters, digits, dash, dot and underscore; not a leading dot.
func plainName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return s != "" && len(s) <= 128 && s[0] != '.' && strings.Trim(s, letters) == ""
}
