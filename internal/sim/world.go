package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// epoch is when every simulated world begins.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// world is everything outside the engine: what exists, independent of what any
// server knows of it. It survives the server's crashes.
type world struct {
	rng    *rand.Rand
	now    time.Time
	faults bool          // whether faults happen
	envs   []rollout.Key // that people deploy to

	units      map[string]*unit // by instance ID: what exists on the platform
	sorted     []string         // the units\' IDs; nil: to be made anew
	past       map[string]bool  // IDs that ended or were removed: they must never start again
	late       []lateStart      // starts that were lost on the way and arrive after all
	lateTables []lateTable      // tables likewise
	tables     map[rollout.Key]rollout.Table
	left       map[string]leftRoute // instance ID to how it left its environment's table
	requests   []request
	releases   map[digest.Digest]release.Release
	missing    map[digest.Digest]bool                     // artifacts that are not on hand
	fences     map[place]int64                            // the greatest token that was started
	traffics   map[rollout.Key]map[string]rollout.Traffic // what the router counted since it was started
	routedSet  map[string]bool                            // of tables; nil: to be made anew
	whole      map[place]bool                             // it once was complete since it was last taken away
	specs      map[digest.Digest]release.Spec             // that were started, checked against their digests
	skew       time.Duration                              // what the server's clock is ahead of the world's
	skewedAt   time.Time                                  // when that changed last

	data    map[rollout.Key]*data
	schema  int                       // version of data schemas that programs are at
	answers map[string]answer         // by expression: what Prometheus last said
	cuts    map[string]rollout.Flight // by backend: what the router cut at the end of its drain time

	partition  time.Time // until then the platform does not answer
	routerOut  time.Time // until then the router's control does not answer; it goes on serving
	metricsOut time.Time // until then Prometheus does not answer
	changed    chan struct{}
	stirred    map[rollout.Key]bool // environments in which an instance changed since it was looked at

	story      []told
	violations []string
	served     int                 // requests answered
	excused    int                 // requests that an injected fault cost
	policies   map[rollout.Key]int // how often the environment's policy was set
	admitted   map[granted]bool
	silent     map[rollout.Key]bool            // whose policy did not answer when it was last asked
	judged     bool                            // whether environments may have policies
	remembered func(rollout.Key) rollout.State // what the store has
	debt       map[place]int                   // instances that injected faults took and that were not made up for
	counts     Counts
}

// place is one component of one environment.
type place struct {
	env       rollout.Key
	component string
}

// unit is one instance as the world has it.
type unit struct {
	rollout.Instance
	env       rollout.Key
	spec      release.Spec
	startedAt time.Time
	readyAt   time.Time // far away: never
	exitAt    time.Time // zero: never by itself
	exitCode  int       // with exitAt
	late      bool      // its start had been lost on the way
	downFrom  time.Time // flapping: its probe fails from here
	downTill  time.Time // to here
	stopping  bool
	stopsAt   time.Time // with stopping
	probed    bool      // by the observer of the present server
	wasReady  bool      // as the present server's observer saw it
	exited    *rollout.Exit
}

type lateStart struct {
	at time.Time
	u  *unit
}

func (u *unit) place() place { return place{u.env, u.Component} }

const never = 1000 * time.Hour

func newWorld(seed uint64) *world {
	return &world{
		rng: rand.New(rand.NewPCG(seed, 0x5eed)), schema: 1, now: epoch, faults: true,
		units: map[string]*unit{}, past: map[string]bool{}, tables: map[rollout.Key]rollout.Table{},
		releases: map[digest.Digest]release.Release{}, missing: map[digest.Digest]bool{}, left: map[string]leftRoute{},
		changed: make(chan struct{}, 1), debt: map[place]int{}, specs: map[digest.Digest]release.Spec{}, fences: map[place]int64{},
		data: map[rollout.Key]*data{}, answers: map[string]answer{}, cuts: map[string]rollout.Flight{},
		whole: map[place]bool{}, traffics: map[rollout.Key]map[string]rollout.Traffic{}, stirred: map[rollout.Key]bool{},
		policies: map[rollout.Key]int{}, admitted: map[granted]bool{}, silent: map[rollout.Key]bool{},
		remembered: func(rollout.Key) rollout.State { return rollout.State{} }, judged: seed%3 == 0,
	}
}

// clock is what the server's clock shows.
func (w *world) clock() time.Time { return w.now.Add(w.skew) }

// chance is true with probability p, and never once the faults are off.
func (w *world) chance(p float64) bool { return w.faults && w.rng.Float64() < p }

func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

// answering says whether a unit would answer a request now.
func (u *unit) answering(now time.Time) bool {
	return u.exited == nil && !now.Before(u.readyAt) && (now.Before(u.downFrom) || !now.Before(u.downTill))
}

// advance lets the world run until now: starts arrive, programs end, requests end.
func (w *world) advance(now time.Time) {
	w.now = now
	for _, l := range w.late {
		if !l.at.After(now) && w.units[l.u.ID] == nil && !w.past[l.u.ID] {
			if l.u.Fence != 0 && l.u.Fence <= w.fences[l.u.place()] || w.held(l.u) {
				w.tell("world: the lost start of %s comes to nothing: what it needs is held", l.u.ID)
				continue
			}
			l.u.late = true
			w.place(l.u)
			w.counts.Late++
			w.tell("world: the lost start of %s arrives after all", l.u.ID)
		}
	}
	w.late = slices.DeleteFunc(w.late, func(l lateStart) bool { return !l.at.After(now) })
	for _, l := range w.lateTables {
		if l.at.After(now) {
			continue
		}
		w.tell("world: the lost table %d of %s arrives after all", l.table.Generation, l.env)
		w.counts.Late++
		if err := w.enforce(l.env, l.table); err != nil {
			w.tell("world: it comes to nothing: %v", err)
		}
	}
	w.lateTables = slices.DeleteFunc(w.lateTables, func(l lateTable) bool { return !l.at.After(now) })
	for _, id := range w.ids() {
		w.advanceUnit(w.units[id])
	}
	w.requests = slices.DeleteFunc(w.requests, w.ended)
}

func (w *world) advanceUnit(u *unit) {
	switch {
	case u.exited != nil:
	case u.stopping && !u.stopsAt.After(w.now):
		u.exited = &rollout.Exit{At: w.now}
		if u.spec.Env["behaviour"] == "stubborn" {
			u.exited = &rollout.Exit{Code: 137, Signal: "SIGKILL", At: w.now}
		}
		w.cut(u, "was stopped")
	case !u.exitAt.IsZero() && !u.exitAt.After(w.now):
		u.exited = &rollout.Exit{Code: u.exitCode, At: w.now}
		if u.Hook == "" {
			w.owe(u)
		} else {
			w.migrate(u)
		}
		w.cut(u, "ended by itself")
	}
	if !u.downFrom.IsZero() && !u.downFrom.After(w.now) && u.downTill.After(w.now) {
		w.owe(u)
	}
}

// owe notes that an injected fault took an instance, for which the engine is not
// to blame until it had the chance to make up for it.
func (w *world) owe(u *unit) {
	w.debt[u.place()]++
}

// signal tells the platform's watcher that an instance changed.
func (w *world) signal(env rollout.Key) {
	w.stirred[env] = true
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// held says whether another unit holds what a unit needs alone.
func (w *world) held(u *unit) bool {
	for _, other := range w.units {
		if other.exited == nil && w.excludes(u, other) {
			return true
		}
	}
	return false
}

// ids lists the units' IDs, sorted.
func (w *world) ids() []string {
	if w.sorted == nil {
		for id := range w.units {
			w.sorted = append(w.sorted, id)
		}
		slices.Sort(w.sorted)
	}
	return w.sorted
}

// place takes a unit into the world, and displace out of it.
func (w *world) place(u *unit) {
	w.units[u.ID], w.sorted = u, nil
	w.begin(u)
	if u.Fence != 0 {
		w.fences[u.place()] = max(w.fences[u.place()], u.Fence)
	}
}

func (w *world) displace(id string) {
	delete(w.units, id)
	w.sorted = nil
}
