package nft

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Config says what a Router works with. Dir and Bridge are required.
type Config struct {
	Dir    string // services.json is here; it should outlive the machine's power
	Bridge string // of the instances; its name is that of the server too
	Log    *slog.Logger
	Now    func() time.Time // default time.Now
}

// Router is the kernel's part of a server's routes. Its methods are safe for concurrent use.
type Router struct {
	cfg   Config
	table *nftables.Table

	mu     sync.Mutex
	kernel kernel
	book   *addresses
	known  map[rollout.Key]environment // as this process wrote it; it holds as long as the kernel has its stamp
	timer  *time.Timer                 // of the next cut
	wake   time.Time                   // when that is; zero: never
	ended  bool
	took   time.Duration         // by the last change of routes, from its first byte to the kernel's acknowledgement
	counts map[rollout.Key]count // by the last Status, since the last Apply
}

// New opens the file of addresses. The kernel is touched only if something was routed
// before: what drains goes on to drain.
func New(cfg Config) (*Router, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	book, err := openAddresses(cfg.Dir)
	if err != nil {
		return nil, err
	}
	_, name, _ := strings.Cut(cfg.Bridge, "-")
	r := &Router{cfg: cfg, book: book, known: map[rollout.Key]environment{}, table: &nftables.Table{Name: "ashlar-" + name, Family: nftables.TableFamilyIPv4}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repairAll()
	r.cutOverdue()
	return r, nil
}

// Addresses gives the stable addresses of an environment's services, new ones where
// need be. They stay the same for ever.
func (r *Router) Addresses(key rollout.Key, services []string) (map[string]netip.Addr, error) {
	if len(services) == 0 {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.settle(); err != nil {
		return nil, err
	}
	return r.book.take(key, services)
}

// settle chooses the server's block if it has none, and makes its addresses the host's.
func (r *Router) settle() error {
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	var own netip.Prefix
	if r.book.Block.IsValid() {
		own = r.book.lower()
	}
	used, err := usedPrefixes(own)
	if err != nil {
		return err
	}
	switch block := r.book.Block; {
	case !block.IsValid():
		if r.book.Block = freeBlock(used); !r.book.Block.IsValid() {
			return fault.New(fault.Unavailable, "no free block of addresses for TCP services is left in %s", Pool).
				Mend("see what uses them:  ip route show table all")
		}
	case overlap(block, used).IsValid():
		return fault.New(fault.Conflict, "the addresses of the TCP services, %s, overlap %s, which this host uses", block, overlap(block, used)).
			At(r.book.file).Mend("free them; or, when no instance runs, remove the file and deploy again")
	}
	if err := addLocalRoute(r.book.lower()); err != nil {
		return fault.New(fault.Unavailable, "give the host the addresses %s: %w", r.book.lower(), err).Mend("the server needs root; see  ashlar doctor")
	}
	return nil
}

// Routes says whether the environment has, or should have, something in the kernel. As
// long as it has not, Apply of a table without TCP services does nothing.
func (r *Router) Routes(key rollout.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.routed(key)
}

// Check says whether Apply could take the table's TCP services as they are written.
func (r *Router) Check(key rollout.Key, table rollout.Table) error {
	_, err := tcpServices(key, table)
	return err
}

// Apply replaces the environment's TCP services in one transaction, see engine.Router.
func (r *Router) Apply(ctx context.Context, key rollout.Key, table rollout.Table) error {
	services, err := tcpServices(key, table)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(services) == 0 && !r.book.routed(key) || ctx.Err() != nil {
		return ctx.Err()
	}
	r.counts = nil
	if err := r.prepare(key, services); err != nil {
		return err
	}
	rules := newRuleset(&r.kernel, r.table, r.cfg.Bridge, r.book)
	prev, err := r.read(rules, key)
	if err != nil {
		return unable("read the kernel's routes", err)
	}
	next := stamp{table.Generation, digestOfAll(services)}
	if known, err := inForce(key, prev.stamp, next); err != nil {
		return err
	} else if known {
		return errors.Join(r.repair(rules, key, prev), r.adjust(rules, key, prev))
	}
	if err := r.refuseTaken(rules, key, prev, services); err != nil {
		return err
	}
	env, err := r.replace(rules, key, prev, next, services)
	if err != nil {
		return err
	}
	r.cfg.Log.Info("tcp services in force", "app", key.App, "env", key.Env, "generation", table.Generation, "services", len(services), "took", r.took)
	if err := r.adjust(rules, key, env); err != nil {
		return err
	}
	r.schedule(env)
	return r.finish(rules, key, env)
}

// prepare gives the services their addresses and writes down that they will be in the kernel.
func (r *Router) prepare(key rollout.Key, services []service) error {
	if err := r.settle(); err != nil {
		return err
	}
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.name
	}
	at, err := r.book.take(key, names)
	if err != nil {
		return err
	}
	for i := range services {
		services[i].at = netip.AddrPortFrom(at[services[i].name], services[i].port)
	}
	return r.book.route(key, true)
}

// inForce compares a table with the one in force: the same again needs nothing.
func inForce(key rollout.Key, have, want stamp) (known bool, err error) {
	switch {
	case want.generation < have.generation:
		return false, fault.New(fault.Conflict, "generation %d is older than generation %d, which is in force", want.generation, have.generation).At(key.String())
	case want.generation > have.generation:
		return false, nil
	case want.digest != have.digest:
		return false, fault.New(fault.Conflict, "generation %d is in force with other content", want.generation).At(key.String())
	}
	return true, nil
}

// Status reports what the kernel has, see engine.Router. An environment without
// anything in the kernel has generation 0.
func (r *Router) Status(ctx context.Context, key rollout.Key) (rollout.RouterStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := rollout.RouterStatus{InFlight: map[string]int{}}
	if !r.book.routed(key) || ctx.Err() != nil {
		return s, ctx.Err()
	}
	r.cutOverdue()
	rules := newRuleset(&r.kernel, r.table, r.cfg.Bridge, r.book)
	env, err := r.read(rules, key)
	if err != nil {
		return s, unable("read the kernel's routes", err)
	}
	if env.stamp == (stamp{}) {
		return s, nil
	}
	flows, err := r.countFlows(key, env.members)
	if err != nil {
		return s, unable("count connections", err)
	}
	s.Generation = env.stamp.generation
	s.Kinds, s.Cut = map[string]rollout.Flight{}, map[string]rollout.Flight{}
	for at, m := range env.members {
		n := flows.underWay(at)
		if m.over {
			if m.cut > 0 {
				s.Cut[m.id] = rollout.Flight{TCP: m.cut}
			}
			continue
		}
		s.InFlight[m.id] += n
		if n > 0 {
			s.Kinds[m.id] = rollout.Flight{TCP: n}
		}
	}
	return s, r.finish(rules, key, env)
}

// finish takes away an environment that has no service any more, once what it had is
// done: nothing under way, and nothing cut that is still told.
func (r *Router) finish(rules *ruleset, key rollout.Key, env environment) error {
	if len(env.services) > 0 {
		return nil
	}
	flows, err := r.listFlows(env.members)
	if err != nil {
		return unable("count connections", err)
	}
	for at, m := range env.members {
		if m.over && r.cfg.Now().Sub(m.till) < remembered && m.cut > 0 && !r.ended || !m.over && flows.underWay(at) > 0 {
			return nil
		}
	}
	return r.forget(rules, key, env)
}

func (r *Router) forget(rules *ruleset, key rollout.Key, env environment) error {
	b, err := rules.kernel.begin()
	if err != nil {
		return unable("talk to the kernel", err)
	}
	rules.erase(b, key, env)
	if err := b.commit(); err != nil {
		return unable("change the kernel's routes", err)
	}
	delete(r.known, key)
	return r.book.route(key, false)
}

// Close stops what waits for drains; the services go on. If there is none any more, nothing
// of the server is left in the kernel.
func (r *Router) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	defer r.kernel.end()
	if r.timer != nil {
		r.timer.Stop()
	}
	if !r.book.Block.IsValid() || ctx.Err() != nil {
		return ctx.Err()
	}
	rules := newRuleset(&r.kernel, r.table, r.cfg.Bridge, r.book)
	for _, text := range slices.Clone(r.book.Routed) {
		key := parseKey(text)
		env, err := r.read(rules, key)
		if err == nil && env.stamp != (stamp{}) {
			err = r.finish(rules, key, env)
		}
		if err != nil || r.book.routed(key) {
			return err // nil: all of it stays
		}
	}
	return r.tearDown(rules)
}

// tearDown removes the server's table, route and settings.
func (r *Router) tearDown(rules *ruleset) error {
	there, err := rules.present()
	if err != nil {
		return unable("read the kernel's tables", err)
	}
	if there {
		links, err := rules.links()
		if err != nil {
			return unable("read the kernel's tables", err)
		}
		for _, link := range links {
			_, err := set(link, "forwarding", "0")
			if err != nil {
				return err
			}
		}
		b, err := rules.kernel.begin()
		if err != nil {
			return unable("talk to the kernel", err)
		}
		b.DelTable(r.table)
		if err := b.commit(); err != nil {
			return unable("remove the server's table", err)
		}
	}
	_, one := set(r.cfg.Bridge, "forwarding", "0")
	_, two := set(r.cfg.Bridge, "route_localnet", "0")
	return errors.Join(one, two, removeLocalRoute(r.book.lower()), r.book.clear())
}

func parseKey(text string) rollout.Key {
	app, env := filepath.Split(text)
	return rollout.Key{App: strings.TrimSuffix(app, "/"), Env: env}
}

func unable(what string, err error) error {
	return fault.New(fault.Unavailable, "%s: %w", what, err).Mend("see whether this host can route TCP services:  ashlar doctor")
}
