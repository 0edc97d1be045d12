package sim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What the router has under way, and what it counts.

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
}

// cutAt is when what is under way is cut on a backend that left.
func (l leftRoute) cutAt(k kind) time.Time {
	x := l.service.Drains
	return l.at.Add(cmp.Or([]time.Duration{x.Request, x.WebSocket, x.Stream, x.GRPC, x.TCP}[k], l.service.Drain))
}

// ended says whether what is under way has ended, and counts what the router cut.
func (w *world) ended(r request) bool {
	if !r.till.After(w.now) {
		return true
	}
	l, left := w.left[r.backend]
	if !left || l.cutAt(r.kind).After(w.now) {
		return false
	}
	w.cuts[r.backend] = counted(w.cuts[r.backend], r.kind)
	return true
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

func (w *world) keys() []rollout.Key {
	keys := make([]rollout.Key, 0, len(w.tables))
	for k := range w.tables {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rollout.Key) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
