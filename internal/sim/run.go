package sim

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Options vary a run. The zero value is what `ashlar simulate` runs.
type Options struct {
	Alter func(*engine.Config) // changes a server's parts before it starts; nil: as they are
}

// Counts say how much a run went through.
type Counts struct {
	Ticks, Crashes, Deploys, Rollbacks, Live, PutBack int
	Downs, Lifted                                     int // environments taken down; quarantines lifted
	Late                                              int // starts and tables that were lost and arrived after all
	Promoted, Asked, Forced                           int // releases that were live elsewhere; gates passed on an answer of Prometheus; deploys forced
	Policies, Refused                                 int // policies that were set, releases that they refused
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

// Run plays one seed.
func Run(seed uint64, opts Options) Result {
	w := newWorld(seed)
	w.envs = w.drawEnvs()
	r := &runner{w: w, store: faultyStore{&Store{states: map[engine.Key]stored{}, sparing: true}, w}, opts: opts}
	w.remembered = r.store.peek
	for _, key := range w.envs {
		r.tended = append(r.tended, &tended{key: key})
	}
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
			w.violate("liveness", "not at rest %s after the faults stopped: %s", quietBound, r.waiting())
		}
	}
	r.checkRecord()
	w.counts.Ticks, w.counts.Served, w.counts.Excused = r.ticks, w.served, w.excused
	return Result{Seed: seed, Violations: w.violations, Story: w.words, Counts: w.counts}
}

// runner is the server side of a run: one engine at a time, on one world.
type runner struct {
	w      *world
	store  faultyStore
	opts   Options
	engine *engine.Engine
	tended []*tended
	ticks  int
	made   int       // releases
	next   time.Time // when an operator does something again
}

// tended is what the server's loop knows of one environment.
type tended struct {
	key     rollout.Key
	due     time.Time // when it is looked at again at the latest
	waiting []string
	rest    int // ticks in a row that found nothing to do
}

// boot starts a server: its memory is empty, the world is as it is.
func (r *runner) boot() {
	for _, u := range r.w.units {
		u.probed = false
	}
	for _, t := range r.tended {
		t.due = r.w.now
	}
	if err := r.store.recode(); err != nil {
		panic(err)
	}
	config := engine.Config{
		Store: r.store, Platforms: map[string]engine.Platform{"sim": platform{r.w}},
		Router: router{r.w}, Artifacts: artifacts{r.w}, Admitter: admitter{r.w}, Metrics: metrics{r.w}, Log: slog.New(slog.DiscardHandler), Parallel: 1,
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

// step lets time pass until the server looks at an environment again or an operator
// has something to say. A look is one Tick, and then the invariants.
func (r *runner) step() {
	w := r.w
	t := r.soonest()
	till := t.due
	if w.faults && r.next.Before(till) {
		till = r.next
	}
	// Time passes in small pieces, so that requests meet every state of the world.
	for w.now.Before(till) {
		w.advance(w.now.Add(min(till.Sub(w.now), w.between(time.Millisecond, 250*time.Millisecond))))
		w.traffic()
		if r.stirred() {
			t = r.soonest()
			break
		}
	}
	if w.now.Before(t.due) {
		return
	}
	r.ticks++
	t.due = w.now.Add(200 * time.Millisecond)
	r.guarded(func() { r.look(t) })
	if len(w.violations) == 0 {
		w.check(t.key, r.state(t.key))
	}
}

// look is one Tick of an environment.
func (r *runner) look(t *tended) {
	ticked, err := r.engine.Tick(context.Background(), r.w.clock(), t.key)
	t.waiting = ticked.Waiting
	switch {
	case err != nil:
		t.waiting = append(t.waiting, err.Error())
	case ticked.Busy:
		t.due, t.rest = r.w.now.Add(r.w.between(time.Millisecond, 20*time.Millisecond)), 0
	default:
		wait := 5 * time.Second
		if !ticked.Wake.IsZero() {
			wait = min(wait, max(ticked.Wake.Sub(r.w.clock()), time.Millisecond))
		}
		t.due = r.w.now.Add(wait)
		t.rest++
	}
}

// soonest is the environment that is looked at next.
func (r *runner) soonest() *tended {
	return slices.MinFunc(r.tended, func(a, b *tended) int { return a.due.Compare(b.due) })
}

// stirred has environments looked at now in which an instance changed, and says
// whether there are any.
func (r *runner) stirred() bool {
	any := false
	for _, t := range r.tended {
		if r.w.stirred[t.key] {
			t.due, any = r.w.now, true
			delete(r.w.stirred, t.key)
		}
	}
	return any
}

func (r *runner) waiting() string {
	var all []string
	for _, t := range r.tended {
		for _, what := range t.waiting {
			all = append(all, t.key.String()+": "+what)
		}
	}
	return strings.Join(all, "; ")
}

func (r *runner) state(key rollout.Key) rollout.State {
	s, _, err := r.store.State(context.Background(), key)
	if err != nil {
		panic(err)
	}
	return s
}

// Add adds another run's counts.
func (c *Counts) Add(o Counts) {
	c.Ticks += o.Ticks
	c.Crashes += o.Crashes
	c.Late += o.Late
	c.Downs += o.Downs
	c.Lifted += o.Lifted
	c.Deploys += o.Deploys
	c.Rollbacks += o.Rollbacks
	c.Promoted += o.Promoted
	c.Asked += o.Asked
	c.Forced += o.Forced
	c.Policies += o.Policies
	c.Refused += o.Refused
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
