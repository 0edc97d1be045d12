package sim

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Options vary a run. The zero value is what `ashlar simulate` runs.
type Options struct {
	Alter func(*engine.Config) // changes a server's parts before it starts; nil: as they are
}

// Counts say how much a run went through.
type Counts struct {
	Ticks, Crashes, Deploys, Rollbacks, Live, PutBack int
	Superseded, Rehearsals, Said                      int // Said: what people said to rollouts in flight
	Stages, Rolls, Hooks                              int // steps of canaries and rolling replacements, hooks and jobs that were run
	Served, Excused                                   int // requests answered, and lost to an injected fault alone
}

// Result is one run.
type Result struct {
	Seed       uint64
	Violations []string        // invariants that did not hold; empty is good
	Story      func() []string // everything that happened, a line each
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
	r := &runner{w: w, store: faultyStore{&Store{states: map[engine.Key]stored{}, sparing: true}, w}, opts: opts}
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
		r.attend()
		if w.now.After(end) || r.ticks > mostTicks {
			w.violate("liveness", "not at rest %s after the faults stopped: %s", quietBound, strings.Join(r.waiting, "; "))
		}
	}
	r.checkRecord()
	w.counts.Ticks, w.counts.Served, w.counts.Excused = r.ticks, w.served, w.excused
	return Result{Seed: seed, Violations: w.violations, Story: w.words, Counts: w.counts}
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
	if err := r.store.recode(); err != nil {
		panic(err)
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
		ticked, err := r.engine.Tick(context.Background(), w.clock(), theKey)
		r.waiting = ticked.Waiting
		switch {
		case err != nil:
			r.waiting = append(r.waiting, err.Error())
		case ticked.Busy:
			wait, r.rest = w.between(time.Millisecond, 20*time.Millisecond), 0
		default:
			wait = 5 * time.Second
			if !ticked.Wake.IsZero() {
				wait = min(wait, max(ticked.Wake.Sub(w.clock()), time.Millisecond))
			}
			r.rest++
		}
	})
	if s := r.state(); len(w.violations) == 0 {
		w.checkCapacity(s)
		w.checkShares(s)
		w.checkPutBack(s)
	}
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

// operate is what people do: deploy something, go back, say something to what is in
// flight, now and then. Clocks jump, too.
func (r *runner) operate() {
	w := r.w
	if w.now.Before(r.next) {
		return
	}
	r.next = w.now.Add(w.between(0, 20*time.Second))
	if w.chance(0.05) {
		w.skew, w.skewedAt = w.between(-40*time.Second, 40*time.Second), w.now
		w.tell("fault: the server's clock jumps to %s", w.skew)
	}
	if w.chance(0.05) {
		w.lose()
	}
	r.guarded(func() {
		var err error
		switch w.rng.IntN(8) {
		case 0, 1:
			err = r.goBack()
		case 2:
			err = r.say(commands[w.rng.IntN(len(commands))])
		default:
			err = r.deploy()
		}
		if err != nil {
			w.tell("operator: refused: %v", strings.SplitN(err.Error(), "\n", 2)[0])
		}
	})
	r.attend()
}

// lose takes an artifact of some release away: a disk that fails, an operator's rm.
func (w *world) lose() {
	for _, d := range slices.Sorted(maps.Keys(w.releases)) {
		for _, name := range slices.Sorted(maps.Keys(w.releases[d].Environments[theKey.Env].Components)) {
			if tree := w.releases[d].Environments[theKey.Env].Components[name].Spec.Tree; w.chance(0.1) {
				w.missing[tree] = true
				w.tell("fault: tree %s is gone", tree)
				return
			}
		}
	}
}

// commands that people give, those that help more often.
var commands = []string{
	rollout.VerbPause, rollout.VerbResume, rollout.VerbResume, rollout.VerbApprove, rollout.VerbApprove, rollout.VerbAbort, rollout.VerbRetry,
}

// goBack rehearses a rollback and then does it: what the rehearsal says holds.
func (r *runner) goBack() error {
	w, ctx := r.w, context.Background()
	w.counts.Rehearsals++
	ready, err := r.engine.Rehearse(ctx, w.clock(), theKey)
	if err != nil {
		return err
	}
	w.tell("operator: rollback, which should work: %v", ready.OK)
	_, err = r.engine.Rollback(ctx, w.clock(), "operator", theKey, "", engine.DeployOptions{Reason: "simulated"})
	if err == nil {
		w.counts.Rollbacks++
	} else if k := fault.Of(err).Kind; ready.OK && k != fault.Internal && k != fault.Conflict {
		w.violate("rehearsal", "a rollback should work and is refused: %v", err)
	}
	return err
}

func (r *runner) say(verb string) error {
	r.w.tell("operator: %s", verb)
	r.w.counts.Said++
	_, err := r.engine.Control(context.Background(), r.w.clock(), "operator", theKey, rollout.Command{Verb: verb, Reason: "simulated"})
	return err
}

func (r *runner) deploy() error {
	w, ctx := r.w, context.Background()
	rel := w.draw(&r.made)
	stored, err := r.engine.AddRelease(ctx, w.clock(), "operator", rel)
	if err != nil {
		return err
	}
	w.releases[stored.Digest] = rel
	o := engine.DeployOptions{Reason: "simulated", Queue: w.rng.IntN(4) == 0, Supersede: w.rng.IntN(4) == 0}
	w.tell("operator: deploy release %d %s%s", stored.Number, describe(rel), manner(o))
	if _, err = r.engine.Deploy(ctx, w.clock(), "operator", theKey, stored.Digest, o); err == nil {
		w.counts.Deploys++
		r.checkOnHand(rel)
	}
	return err
}

func manner(o engine.DeployOptions) string {
	switch {
	case o.Supersede:
		return ", superseding"
	case o.Queue:
		return ", waiting"
	}
	return ""
}

// attend is a person who sooner or later approves what waits and resumes what is
// paused, at once when there are no faults any more.
func (r *runner) attend() {
	s := r.state()
	if s.Rollout == nil || r.w.faults && r.w.rng.IntN(3) > 0 {
		return
	}
	if s.Rollout.Paused != nil {
		r.guarded(func() { _ = r.say(rollout.VerbResume) })
	}
	if slices.ContainsFunc(r.waiting, func(s string) bool { return strings.HasPrefix(s, "a person to approve") }) {
		r.guarded(func() { _ = r.say(rollout.VerbApprove) })
	}
}

// Add adds another run's counts.
func (c *Counts) Add(o Counts) {
	c.Ticks += o.Ticks
	c.Crashes += o.Crashes
	c.Deploys += o.Deploys
	c.Rollbacks += o.Rollbacks
	c.Live += o.Live
	c.PutBack += o.PutBack
	c.Superseded += o.Superseded
	c.Rehearsals += o.Rehearsals
	c.Said += o.Said
	c.Stages += o.Stages
	c.Rolls += o.Rolls
	c.Hooks += o.Hooks
	c.Served += o.Served
	c.Excused += o.Excused
}
