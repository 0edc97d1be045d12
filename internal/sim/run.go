package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Options vary a run. The zero value is what `ashlar simulate` runs.
type Options struct {
	Alter func(*engine.Config) // changes a server's parts before it starts; nil: as they are
}

// Counts say how much a run went through.
type Counts struct {
	Ticks, Crashes, Deploys, Rollbacks, Live, PutBack int
	Served, Excused                                   int // requests answered, and lost to an injected fault alone
}

// Result is one run.
type Result struct {
	Seed       uint64
	Violations []string // invariants that did not hold; empty is good
	Story      []string // everything that happened, a line each
	Counts     Counts
}

// Lengths of a run.
const (
	faultyTime = 90 * time.Second // simulated, with faults and operators
	quietBound = 10 * time.Minute // simulated, within which everything comes to rest
	mostTicks  = 20_000
)

var theKey = rollout.Key{App: "app", Env: "production"}

// Run plays one seed.
func Run(seed uint64, opts Options) Result {
	w := newWorld(seed)
	r := &runner{w: w, store: faultyStore{NewStore(), w, &cachedState{}}, opts: opts}
	r.boot()
	for w.now.Sub(epoch) < faultyTime && len(w.violations) == 0 {
		r.operate()
		r.step()
	}
	w.tell("the faults stop")
	w.faults = false
	for _, u := range w.units {
		if !u.downTill.Before(w.now) { // what was injected is over; what a spec does by itself stays
			u.downTill = w.now
		}
	}
	for end := w.now.Add(quietBound); len(w.violations) == 0 && !r.atRest(); r.step() {
		if w.now.After(end) || r.ticks > mostTicks {
			w.violate("liveness", "not at rest %s after the faults stopped: %s", quietBound, strings.Join(r.waiting, "; "))
		}
	}
	r.checkRecord()
	w.counts.Ticks, w.counts.Served, w.counts.Excused = r.ticks, w.served, w.excused
	return Result{Seed: seed, Violations: w.violations, Story: w.story, Counts: w.counts}
}

// runner is the server side of a run: one engine at a time, on one world.
type runner struct {
	w       *world
	store   faultyStore
	opts    Options
	engine  *engine.Engine
	ticks   int
	made    int // releases
	waiting []string
	rest    int       // ticks in a row that found nothing to do
	next    time.Time // when an operator does something again
}

// boot starts a server: its memory is empty, the world is as it is.
func (r *runner) boot() {
	for _, u := range r.w.units {
		u.probed = false
	}
	config := engine.Config{
		Store: r.store, Platforms: map[string]engine.Platform{"sim": platform{r.w}},
		Router: router{r.w}, Artifacts: artifacts{r.w}, Log: slog.New(slog.DiscardHandler), Parallel: 1,
	}
	if r.opts.Alter != nil {
		r.opts.Alter(&config)
	}
	r.engine = engine.New(config)
}

// guarded calls the server and starts a new one if it crashed.
func (r *runner) guarded(call func()) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crash:
			r.w.tell("fault: the server is killed %s", p.where)
			r.w.advance(r.w.now.Add(r.w.between(0, 5*time.Second)))
			r.boot()
		default:
			panic(p)
		}
	}()
	call()
}

// step is one Tick, the invariants, and time passing until the next.
func (r *runner) step() {
	w := r.w
	r.ticks++
	wait := 200 * time.Millisecond
	r.guarded(func() {
		ticked, err := r.engine.Tick(context.Background(), w.now, theKey)
		r.waiting = ticked.Waiting
		switch {
		case err != nil:
			r.waiting = append(r.waiting, err.Error())
		case ticked.Busy:
			wait, r.rest = w.between(time.Millisecond, 20*time.Millisecond), 0
		default:
			wait = 5 * time.Second
			if !ticked.Wake.IsZero() {
				wait = min(wait, max(ticked.Wake.Sub(w.now), time.Millisecond))
			}
			r.rest++
		}
	})
	w.checkCapacity(r.state())
	if w.faults && w.now.Before(r.next) {
		wait = min(wait, r.next.Sub(w.now))
	}
	// Time passes in small pieces, so that requests meet every state of the world.
	for end := w.now.Add(wait); w.now.Before(end); {
		w.advance(w.now.Add(min(end.Sub(w.now), w.between(time.Millisecond, 250*time.Millisecond))))
		w.traffic()
		select {
		case <-w.changed:
			return
		default:
		}
	}
}

func (r *runner) state() rollout.State {
	s, _, err := r.store.State(context.Background(), theKey)
	if err != nil {
		panic(err)
	}
	return s
}

// operate is what people do: deploy something, go back, now and then.
func (r *runner) operate() {
	w := r.w
	if w.now.Before(r.next) {
		return
	}
	r.next = w.now.Add(w.between(0, 25*time.Second))
	r.guarded(func() {
		ctx := context.Background()
		var err error
		if w.rng.IntN(3) == 0 {
			w.tell("operator: rollback")
			if _, err = r.engine.Rollback(ctx, w.now, "operator", theKey, "", engine.DeployOptions{Reason: "simulated"}); err == nil {
				w.counts.Rollbacks++
			}
		} else {
			rel := w.draw(&r.made)
			var stored engine.Stored
			stored, err = r.engine.AddRelease(ctx, w.now, "operator", rel)
			if err == nil {
				w.releases[stored.Digest] = rel
				w.tell("operator: deploy release %d %s", stored.Number, describe(rel))
				if _, err = r.engine.Deploy(ctx, w.now, "operator", theKey, stored.Digest, engine.DeployOptions{Reason: "simulated"}); err == nil {
					w.counts.Deploys++
					r.checkOnHand(rel)
				}
			}
		}
		if err != nil {
			w.tell("operator: refused: %v", strings.SplitN(err.Error(), "\n", 2)[0])
		}
	})
}

// draw makes a release: up to three components, each behaving somehow.
func (w *world) draw(made *int) release.Release {
	*made++
	env := release.Environment{Platform: "sim", Rollout: release.Rollout{Strategy: "blue-green"}, Listen: "127.0.0.1:80", Keep: 3, Components: map[string]release.Component{}}
	for i, name := range []string{"api", "web", "worker"}[:1+w.rng.IntN(3)] {
		behaviour, version := "good", 0
		if w.rng.IntN(3) > 0 {
			version = *made
			behaviour = behaviours[w.rng.IntN(len(behaviours))]
		}
		c := release.Component{
			Spec: release.Spec{
				Artifact: digest.FromString("artifact " + name), Tree: digest.FromString(fmt.Sprint("tree ", name, version)),
				Settings: digest.FromString("settings"), Command: []string{"/" + name}, WorkDir: "/", UID: 1000, GID: 1000, Port: 80,
				Env: map[string]string{"behaviour": behaviour, "VERSION": fmt.Sprint(version)}, StopSignal: "SIGTERM", StopGraceMS: 5000,
				Health: &release.Health{HTTP: "/", IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 1, StartMS: 10_000},
			},
			Replicas: 1 + w.rng.IntN(3), DrainMS: int64(w.rng.IntN(5)) * 1000,
		}
		if name != "worker" {
			c.Route = &release.Route{Path: "/" + fmt.Sprint(i), HoldMS: 1000}
		}
		if w.chance(0.02) {
			w.missing[c.Spec.Tree] = version > 0
		}
		env.Components[name] = c
	}
	return release.Release{Schema: release.Schema, App: theKey.App, Environments: map[string]release.Environment{theKey.Env: env}}
}

// behaviours of a program, the good one more often than the others.
var behaviours = []string{"good", "good", "good", "good", "slow", "exits", "never-ready", "flaps", "refused", "stubborn"}

func describe(rel release.Release) string {
	var parts []string
	cs := rel.Environments[theKey.Env].Components
	for _, name := range slices.Sorted(maps.Keys(cs)) {
		c := cs[name]
		parts = append(parts, fmt.Sprintf("%s×%d v%s %s", name, c.Replicas, c.Spec.Env["VERSION"], c.Spec.Env["behaviour"]))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Add adds another run's counts.
func (c *Counts) Add(o Counts) {
	c.Ticks += o.Ticks
	c.Crashes += o.Crashes
	c.Deploys += o.Deploys
	c.Rollbacks += o.Rollbacks
	c.Live += o.Live
	c.PutBack += o.PutBack
	c.Served += o.Served
	c.Excused += o.Excused
}
