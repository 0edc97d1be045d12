package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Store is the record with how far each webhook has been told.
type Store interface {
	// Environments lists the environments that have a state.
	Environments(ctx context.Context) ([]rollout.Key, error)
	// Entries gives the entries with from <= Index < to of an environment (the zero
	// Key: all), in order; to < 0 means up to the end.
	Entries(ctx context.Context, env rollout.Key, from, to int64) ([]record.Entry, error)
	// Head gives the number of entries.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Appended gives a channel that the next change closes.
	Appended() <-chan struct{}
	// Told gives, by address, the index of the first entry that a webhook of the
	// environment has not been told yet.
	Told(ctx context.Context, env rollout.Key) (map[string]int64, error)
	// Tell sets it, and appends entries in the same transaction.
	Tell(ctx context.Context, env rollout.Key, url string, next int64, entries []record.Entry) error
	// Untell forgets a webhook.
	Untell(ctx context.Context, env rollout.Key, url string) error
}

// Config is what a Courier is made of.
type Config struct {
	Store  Store
	Source string // this server, a URI reference such as "/ashlar/HOST"
	Log    *slog.Logger
	Now    func() time.Time
	Pause  func(ctx context.Context, d time.Duration) error // returns after d, or the error of ctx

	// Hooks gives the webhooks of the environment's current release.
	Hooks func(ctx context.Context, env rollout.Key) ([]release.Webhook, error)
	// Secret gives the value of a secret of the environment.
	Secret func(ctx context.Context, env rollout.Key, name string) ([]byte, error)
}

// Courier brings events to webhooks. See Run.
type Courier struct {
	Config

	mu     sync.Mutex
	routes map[route]*errand
}

// route is one webhook of one environment.
type route struct {
	env rollout.Key
	url string
}

// errand is a route that is being served.
type errand struct {
	hook    release.Webhook
	end     context.CancelFunc
	ended   chan struct{}
	poke    chan struct{} // capacity 1: there is more to tell
	trouble string        // guarded by Courier.mu
}

// New makes a courier. Nothing happens before Run.
func New(c Config) *Courier { return &Courier{Config: c, routes: map[route]*errand{}} }

// Run serves every webhook until ctx ends, whose error it returns. While the store
// fails it tries again. A webhook that a release brings is told of the rollout that
// brought it, from its beginning; one that a release takes away is told nothing after
// the move to that release.
func (c *Courier) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		err := c.watch(ctx, &wg)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Log.Error("cannot see to webhooks", "err", err, "pause", storePause)
		if err := c.Pause(ctx, storePause); err != nil {
			return err
		}
	}
}

// watch follows the record from here on, and returns when ctx ends or the store fails.
func (c *Courier) watch(ctx context.Context, wg *sync.WaitGroup) error {
	appended := c.Store.Appended()
	from, _, err := c.Store.Head(ctx)
	if err != nil {
		return err
	}
	keys, err := c.Store.Environments(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := c.sync(ctx, wg, key); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-appended:
		}
		appended = c.Store.Appended()
		entries, err := c.Store.Entries(ctx, rollout.Key{}, from, -1)
		if err != nil {
			return err
		}
		for key, moved := range touched(entries) {
			if moved {
				err = errors.Join(err, c.sync(ctx, wg, key))
			}
			c.poke(key)
		}
		if err != nil {
			return err
		}
		if n := len(entries); n > 0 {
			from = entries[n-1].Index + 1
		}
	}
}

// touched gives the environments that entries are about, and whether the current
// release of each may be another.
func touched(entries []record.Entry) map[rollout.Key]bool {
	out := map[rollout.Key]bool{}
	for _, e := range entries {
		if e.Env != "" {
			key := rollout.Key{App: e.App, Env: e.Env}
			out[key] = out[key] || strings.HasPrefix(e.Kind, "rollout.") || strings.HasPrefix(e.Kind, "release.")
		}
	}
	return out
}

// sync serves the webhooks that an environment's current release has, and no others.
func (c *Courier) sync(ctx context.Context, wg *sync.WaitGroup, key rollout.Key) error {
	hooks, err := c.Hooks(ctx, key)
	if err != nil {
		return fmt.Errorf("webhooks of %s: %w", key, err)
	}
	want := map[string]release.Webhook{}
	for _, h := range hooks {
		want[h.URL] = h
	}
	told, err := c.Store.Told(ctx, key)
	if err != nil {
		return err
	}
	for r, e := range c.serving(key) {
		if want[r.url] != e.hook {
			c.stop(r, e)
		}
	}
	for url := range told {
		if _, ok := want[url]; !ok {
			if err := c.Store.Untell(ctx, key, url); err != nil {
				return err
			}
		}
	}
	for _, url := range slices.Sorted(maps.Keys(want)) {
		r := route{key, url}
		if c.serving(key)[r] != nil {
			continue
		}
		if _, ok := told[url]; !ok {
			if err := c.introduce(ctx, r); err != nil {
				return err
			}
		}
		c.serve(ctx, wg, r, want[url])
	}
	return nil
}

// introduce gives a new webhook its place: the beginning of the last rollout.
func (c *Courier) introduce(ctx context.Context, r route) error {
	entries, err := c.Store.Entries(ctx, r.env, 0, -1)
	if err != nil {
		return err
	}
	next := int64(0)
	for _, e := range slices.Backward(entries) {
		if next = e.Index; e.Kind == "rollout.begun" {
			break
		}
	}
	return c.Store.Tell(ctx, r.env, r.url, next, nil)
}

func (c *Courier) serving(key rollout.Key) map[route]*errand {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[route]*errand{}
	for r, e := range c.routes {
		if r.env == key {
			out[r] = e
		}
	}
	return out
}

func (c *Courier) serve(ctx context.Context, wg *sync.WaitGroup, r route, hook release.Webhook) {
	ctx, cancel := context.WithCancel(ctx)
	e := &errand{hook: hook, end: cancel, ended: make(chan struct{}), poke: make(chan struct{}, 1)}
	c.mu.Lock()
	c.routes[r] = e
	c.mu.Unlock()
	wg.Go(func() {
		defer close(e.ended)
		c.follow(ctx, r, e)
	})
}

// stop ends an errand, and waits until it has: its place may be taken after that.
func (c *Courier) stop(r route, e *errand) {
	e.end()
	<-e.ended
	c.mu.Lock()
	delete(c.routes, r)
	c.mu.Unlock()
}

func (c *Courier) poke(key rollout.Key) {
	for _, e := range c.serving(key) {
		select {
		case e.poke <- struct{}{}:
		default: // it looks already
		}
	}
}

// Troubles tells which webhooks of an environment cannot be told now, and why.
func (c *Courier) Troubles(key rollout.Key) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for r, e := range c.routes {
		if r.env == key && e.trouble != "" {
			out = append(out, e.trouble)
		}
	}
	slices.Sort(out)
	return out
}
