package local

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// meta is what instance.json holds: written before anything of the instance is made.
type meta struct {
	Key       rollout.Key      `json:"key"`
	Instance  rollout.Instance `json:"instance"`
	Spec      release.Spec     `json:"spec"`
	Address   netip.Addr       `json:"address"`
	Unit      string           `json:"unit"` // its name to the runtime, see blank
	Link      string           `json:"link"` // the host's end of its network link
	CreatedAt time.Time        `json:"createdAt"`
}

// hostPort is where the instance listens; empty without a port.
func (m meta) hostPort() string {
	if m.Spec.Port == 0 {
		return ""
	}
	return netip.AddrPortFrom(m.Address, uint16(m.Spec.Port)).String()
}

// The files of an instance's directory that the server writes; the others are the shim's.
const (
	metaFile  = "instance.json"
	readyFile = "ready" // there once the instance was ready
)

// instance is what the platform knows of one instance.
type instance struct {
	platform *Platform
	meta     meta
	removal  sync.Mutex // held by who takes the instance, or what a lost shim left, away

	born     chan struct{} // closed when Start is over, or at adoption
	startErr error         // what came of Start; read after born

	mu     sync.Mutex
	shim   *shim.Client // nil: none, or not yet
	said   shim.Message // the last thing that the shim said
	exit   *shim.Exit
	lost   string             // why the exit status is not known
	health *health            // nil: ready as soon as it runs
	watch  context.CancelFunc // ends the prober; nil: none
}

func newInstance(p *Platform, m meta) *instance {
	return &instance{
		platform: p, meta: m,
		born: make(chan struct{}),
		said: shim.Message{State: shim.Creating},
	}
}

func (i *instance) dir() string { return i.platform.instanceDir(i.meta.Instance.ID) }

func (i *instance) birth(err error) {
	i.startErr = err
	close(i.born)
}

func (i *instance) awaitBirth(ctx context.Context) error {
	select {
	case <-i.born:
		return i.startErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// heard takes what the shim said.
func (i *instance) heard(m shim.Message) {
	i.mu.Lock()
	changed := m.State != i.said.State
	i.said = m
	if m.Exit != nil && i.exit == nil {
		i.exit = m.Exit
	}
	i.mu.Unlock()
	switch m.State {
	case shim.Stopping, shim.Exited:
		i.unprobe()
	}
	if changed {
		i.platform.signal()
	}
}

// attend watches the connection to the shim until it ends.
func (i *instance) attend(c *shim.Client) {
	i.mu.Lock()
	i.shim = c
	i.mu.Unlock()
	i.platform.watches.Go(func() {
		<-c.Done()
		if i.platform.ctx.Err() == nil {
			i.shimEnded(c)
		}
	})
}

// shimEnded finds out why there is no shim any more: the program's end, or a kill.
func (i *instance) shimEnded(c *shim.Client) {
	if i.client() != c {
		return // it has another one by now
	}
	i.unprobe()
	if !i.started() {
		return // Start sees to it
	}
	var exit shim.Exit
	err := shim.ReadJSON(filepath.Join(i.dir(), shim.ExitFile), &exit)
	if err == nil {
		i.mu.Lock()
		i.exit = &exit
		i.mu.Unlock()
		i.platform.signal()
		return
	}
	i.mu.Lock()
	known := i.exit != nil
	i.mu.Unlock()
	if known {
		return
	}
	i.lose("its shim ended without leaving an exit status")
	i.platform.clearLost(i)
}

func (i *instance) started() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.said.Started.IsZero()
}

// lose makes the instance one that ended nobody knows how.
func (i *instance) lose(why string) {
	i.mu.Lock()
	i.lost = why
	i.exit = &shim.Exit{Code: 128 + 9, Signal: "SIGKILL", At: i.platform.cfg.Now()}
	i.mu.Unlock()
	i.platform.signal()
}

func (i *instance) client() *shim.Client {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.shim
}

func (i *instance) stop(ctx context.Context) error {
	c := i.client()
	if c == nil {
		return nil
	}
	if _, err := c.Order(ctx, shim.OpStop); err != nil && !errors.Is(err, shim.ErrGone) {
		return err
	}
	return nil
}

// probe begins to probe a running instance. adopted: another server may have
// probed it before.
func (i *instance) probe(adopted, wasReady bool) {
	if i.meta.Spec.Health == nil {
		return
	}
	ctx, cancel := context.WithCancel(i.platform.ctx)
	h := newHealth(*i.meta.Spec.Health, adopted, wasReady)
	i.mu.Lock()
	if i.exit != nil || i.said.State != shim.Running {
		i.mu.Unlock()
		cancel()
		return
	}
	i.health, i.watch = h, cancel
	i.mu.Unlock()
	check := i.check()
	i.platform.watches.Go(func() { h.run(ctx, check, i.probed) })
}

// probed is told of every change of what the probes say.
func (i *instance) probed(phase rollout.Phase) {
	if phase == rollout.Ready {
		if err := touch(filepath.Join(i.dir(), readyFile)); err != nil {
			i.platform.cfg.Log.Warn("cannot remember that an instance was ready", "instance", i.meta.Instance.ID, "err", err)
		}
	}
	i.platform.signal()
}

func (i *instance) unprobe() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.watch != nil {
		i.watch()
		i.watch = nil
	}
}

// unwatch leaves the shim alone.
func (i *instance) unwatch() {
	i.unprobe()
	if c := i.client(); c != nil {
		_ = c.Close() // reading it ends
	}
}

// observed is the instance as List reports it.
func (i *instance) observed() rollout.Observed {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := rollout.Observed{
		ID: i.meta.Instance.ID, Component: i.meta.Instance.Component,
		Release: i.meta.Instance.Release, Spec: i.meta.Instance.Spec,
		Phase: rollout.Starting, Address: i.meta.hostPort(), StartedAt: i.said.Started,
	}
	if o.StartedAt.IsZero() {
		o.StartedAt = i.meta.CreatedAt
	}
	switch {
	case i.exit != nil:
		o.Phase, o.Probe, o.Tail = rollout.Exited, i.lost, i.exit.Tail
		o.Exit = &rollout.Exit{Code: i.exit.Code, Signal: i.exit.Signal, OOM: i.exit.OOM, At: i.exit.At}
	case i.said.State == shim.Stopping:
		o.Phase = rollout.Stopping
	case i.said.State == shim.Running && i.meta.Spec.Health == nil:
		o.Phase = rollout.Ready
	case i.health != nil:
		o.Phase, o.Probe = i.health.now()
	}
	if o.Tail == nil && (o.Probe != "" || o.Phase == rollout.Exited || i.meta.Instance.Hook != "") {
		o.Tail = lastLines(i.platform.logFile(i.meta.Key, i.meta.Instance.ID), observedLines)
	}
	return o
}

// observedLines is how many output lines go with an exit or a failing probe.
const observedLines = 20
