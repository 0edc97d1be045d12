package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

	units     map[string]*unit // by instance ID: what exists on the platform
	sorted    []string         // the units\' IDs; nil: to be made anew
	past      map[string]bool  // IDs that ended or were removed: they must never start again
	late      []lateStart      // starts that were lost on the way and arrive after all
	tables    map[rollout.Key]rollout.Table
	left      map[string]leftRoute // instance ID to how it left its environment's table
	requests  []request
	releases  map[digest.Digest]release.Release
	missing   map[digest.Digest]bool                     // artifacts that are not on hand
	fences    map[place]int64                            // the greatest token that was started
	traffics  map[rollout.Key]map[string]rollout.Traffic // what the router counted since it was started
	routedSet map[string]bool                            // of tables; nil: to be made anew
	whole     map[place]bool                             // it once was complete since it was last taken away
	specs     map[digest.Digest]release.Spec             // that were started, checked against their digests
	skew      time.Duration                              // what the server's clock is ahead of the world's
	skewedAt  time.Time                                  // when that changed last

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

// leftRoute is when a backend left the routes, and of which service.
type leftRoute struct {
	at      time.Time
	service rollout.Service
}

// kind is what is under way.
type kind int

const (
	plain kind = iota
	webSocket
	stream
	grpc
	tcp
)

// request is one under way on a backend.
type request struct {
	backend string
	till    time.Time
	kind    kind
	cut     bool // at till
}

// cutAt is when what is under way is cut on a backend that left.
func (l leftRoute) cutAt(k kind) time.Time {
	x := l.service.Drains
	return l.at.Add(cmp.Or([]time.Duration{x.Request, x.WebSocket, x.Stream, x.GRPC, x.TCP}[k], l.service.Drain))
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

// told is a line of the story. It is put into words when somebody wants to read it,
// which few runs come to.
type told struct {
	at     time.Time
	format string
	args   []any
}

// tell adds to the story. What it is given must not change afterwards.
func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, told{w.now, format, args})
}

// words gives the story, a line each.
func (w *world) words() []string {
	out := make([]string, len(w.story))
	for i, t := range w.story {
		out[i] = fmt.Sprintf("%9.3fs  ", t.at.Sub(epoch).Seconds()) + fmt.Sprintf(t.format, t.args...)
	}
	return out
}

// violate notes that an invariant does not hold.
func (w *world) violate(invariant, format string, args ...any) {
	text := invariant + ": " + fmt.Sprintf(format, args...)
	w.violations = append(w.violations, text)
	w.tell("VIOLATION %s", text)
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
			w.tell("world: the lost start of %s arrives after all", l.u.ID)
		}
	}
	w.late = slices.DeleteFunc(w.late, func(l lateStart) bool { return !l.at.After(now) })
	for _, id := range w.ids() {
		w.advanceUnit(w.units[id])
	}
	w.requests = slices.DeleteFunc(w.requests, func(r request) bool { return !r.till.After(now) && w.ended(r) })
}

// ended counts what the router cut, and says true.
func (w *world) ended(r request) bool {
	if r.cut {
		w.cuts[r.backend] = counted(w.cuts[r.backend], r.kind)
	}
	return true
}

// leave notes that a backend left the routes: what it has under way ends in its time,
// or is cut when its drain time is over.
func (w *world) leave(id string, s rollout.Service) {
	l := leftRoute{w.now, s}
	w.left[id] = l
	for i := range w.requests {
		if r := &w.requests[i]; r.backend == id && l.cutAt(r.kind).Before(r.till) {
			r.till, r.cut = l.cutAt(r.kind), true
		}
	}
}

// counted is a flight with one more.
func counted(f rollout.Flight, k kind) rollout.Flight {
	switch k {
	case plain:
		f.Requests++
	case webSocket:
		f.WebSockets++
	case stream:
		f.Streams++
	case grpc:
		f.GRPC++
	case tcp:
		f.TCP++
	}
	return f
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

// cut ends the requests of a unit that ended. mayStop has checked that the engine
// cost none of them.
func (w *world) cut(u *unit, how string) {
	w.tell("world: %s %s", u.ID, how)
	w.past[u.ID] = true
	w.requests = slices.DeleteFunc(w.requests, func(r request) bool {
		if r.backend == u.ID {
			w.excused++
		}
		return r.backend == u.ID
	})
	w.signal(u.env)
}

// mayStop checks that ending a unit now loses nothing that was promised: it left
// the table, and its requests are done or their drain time is over.
func (w *world) mayStop(u *unit) {
	if w.routed(u.ID) {
		w.violate("I6", "%s is ended while it is routed", u.ID)
	}
	l := w.left[u.ID]
	if w.skewedAt.After(l.at) {
		return
	}
	for _, r := range w.requests {
		if r.backend == u.ID && w.now.Before(l.cutAt(r.kind)) {
			w.violate("I6", "%s is ended with %+v under way, %s after it left the routes", u.ID, w.flight(u.ID), w.now.Sub(l.at))
			return
		}
	}
}

// signal tells the platform's watcher that an instance changed.
func (w *world) signal(env rollout.Key) {
	w.stirred[env] = true
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *world) routed(id string) bool {
	if w.routedSet == nil {
		w.routedSet = map[string]bool{}
		for _, t := range w.tables {
			for _, s := range t.Services {
				for _, b := range s.Backends {
					w.routedSet[b.ID] = true
				}
			}
		}
	}
	return w.routedSet[id]
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

func (w *world) flight(id string) rollout.Flight {
	var f rollout.Flight
	for _, r := range w.requests {
		if r.backend == id {
			f = counted(f, r.kind)
		}
	}
	return f
}

// traffic sends a few requests through each service.
func (w *world) traffic() {
	for _, key := range w.keys() {
		for i := range w.tables[key].Services {
			s := &w.tables[key].Services[i]
			for range w.rng.IntN(3) {
				if b := w.pick(s); b != nil {
					w.send(key, s, b)
				}
			}
		}
	}
}

// pick gives the backend of a service that a request goes to; nil: it is held.
func (w *world) pick(s *rollout.Service) *rollout.Backend {
	all := 0
	for i := range s.Backends {
		all += s.Backends[i].Weight
	}
	if all == 0 {
		return nil
	}
	at := w.rng.IntN(all)
	for i := range s.Backends {
		if at -= s.Backends[i].Weight; at < 0 {
			return &s.Backends[i]
		}
	}
	return nil
}

func (w *world) send(env rollout.Key, s *rollout.Service, b *rollout.Backend) {
	u := w.units[b.ID]
	switch {
	case u == nil:
		w.violate("I6", "a request was lost: backend %s does not exist", b.ID)
	case u.stopping:
		w.violate("I6", "a request was lost: backend %s was stopped while routed", b.ID)
	case !u.answering(w.now):
		w.excused++ // an injected fault took it a moment ago
	default:
		w.served++
		r := request{backend: b.ID, till: w.now.Add(w.between(time.Millisecond, 3*time.Second))}
		switch n := w.rng.IntN(16); {
		case s.TCP != 0:
			r.kind = tcp
		case n < 3:
			r.kind = webSocket + kind(n)
			r.till = r.till.Add(w.between(0, 12*time.Second))
		}
		w.requests = append(w.requests, r)
		w.use(u)
		w.count(env, s.Name, b, u)
	}
}

// count counts an answer, as its program's behaviour makes it.
func (w *world) count(env rollout.Key, service string, b *rollout.Backend, u *unit) {
	key := rollout.TrafficKey(service, b.Release)
	t := w.traffics[env][key]
	latency := make([]int64, len(rollout.LatencyBounds)+1)
	copy(latency, t.Latency)
	t.Latency = latency
	t.Requests++
	class := 8 + w.rng.IntN(4)
	switch u.spec.Env["behaviour"] {
	case "errs":
		if w.rng.IntN(2) == 0 {
			t.Errors++
		}
	case "lags":
		class += 12
	}
	t.Latency[class]++
	if w.traffics[env] == nil {
		w.traffics[env] = map[string]rollout.Traffic{}
	}
	w.traffics[env][key] = t
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

func (w *world) keys() []rollout.Key {
	keys := make([]rollout.Key, 0, len(w.tables))
	for k := range w.tables {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rollout.Key) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
