package router

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleTimeout is shorter than the keep-alive time of common servers (Node.js: 5 s), so
	// that it is rarely the backend that closes a connection just as a request is sent.
	idleTimeout = 4 * time.Second
	// avoidFor is how long a backend that could not be reached is only the last choice.
	avoidFor = 250 * time.Millisecond
	// maxIdle is how many unused connections to one backend are kept.
	maxIdle = 1024
	// maxAnswerHeader is how large the header of an answer may be, in bytes.
	maxAnswerHeader = 256 << 10
)

// shutBit in backend.state says that the backend takes no new request. The bits
// below it count the requests under way.
const shutBit = 1 << 62

var errCut = errors.New("the backend left and its drain time is over")

// dialError says that a backend could not be reached, so nothing was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// backend is one instance with its own connections. It lives from the table that
// brings it until it has left and its last request is done or cut.
type backend struct {
	id      string
	address string
	state   atomic.Int64        // shutBit | requests under way
	special [kinds]atomic.Int32 // of those, how many are of each kind; [plain] is unused
	avoid   atomic.Int64        // Unix nanoseconds until which others are preferred; 0: not at all

	leaving int           // how often it left; guarded by router.mu
	timers  []*time.Timer // of the drain, while leaving; guarded by router.mu

	mu    sync.Mutex
	conns map[*conn]struct{} // all
	idle  []*conn            // those that no request uses, longest first
	calls *http.Transport    // for gRPC, once there was some
	over  kindSet            // kinds that are cut: no connection for them any more
}

func newBackend(id, address string) *backend {
	b := &backend{id: id, address: address}
	b.state.Store(shutBit)
	return b
}

// acquire counts one request. It reports false, and counts nothing, if the
// backend is shut. Counting comes before looking: whoever has shut the backend and
// then reads zero knows that no request is under way and none will come.
func (b *backend) acquire() bool {
	if b.state.Add(1)&shutBit == 0 {
		return true
	}
	b.release()
	return false
}

// release ends what acquire began.
func (b *backend) release() {
	if b.state.Add(-1) == shutBit {
		b.closeIdle(time.Time{})
	}
}

// open lets requests in (again).
func (b *backend) open() {
	b.mu.Lock()
	b.over = 0
	b.mu.Unlock()
	b.state.And(^shutBit)
}

// shut keeps new requests out.
func (b *backend) shut() {
	b.state.Or(shutBit)
	b.closeIdle(time.Time{})
}

// inFlight is the number of requests under way.
func (b *backend) inFlight() int { return int(b.state.Load() &^ shutBit) }

// flights is inFlight by kind.
func (b *backend) flights() flights {
	var f flights
	f[plain] = b.inFlight()
	for k := plain + 1; k < kinds; k++ {
		f[k] = max(0, int(b.special[k].Load()))
		f[plain] -= f[k]
	}
	f[plain] = max(0, f[plain])
	return f
}

// cut ends the requests of some kinds, for good, and returns how many that hit.
func (b *backend) cut(set kindSet) flights {
	hit := b.flights().of(set)
	b.mu.Lock()
	b.over |= set
	var conns []*conn
	for c := range b.conns {
		if set.has(c.kind) {
			conns = append(conns, c)
		}
	}
	b.mu.Unlock()
	for _, c := range conns {
		c.cut()
	}
	return hit
}

// cutBefore ends the requests of some kinds that began before a time, and returns
// how many. Later ones are let in. Calls share connections, and end with theirs.
func (b *backend) cutBefore(set kindSet, before time.Time) flights {
	var hit flights
	b.mu.Lock()
	var conns []*conn
	for c := range b.conns {
		if c.busy && set.has(c.kind) && c.since.Before(before) {
			conns = append(conns, c)
			hit[c.kind]++
		}
	}
	b.mu.Unlock()
	if hit[grpc] > 0 {
		hit[grpc] = b.flights()[grpc]
	}
	for _, c := range conns {
		c.cut()
	}
	return hit
}

// forget ends the drain timers and closes what is left.
func (b *backend) forget() {
	b.stopTimers()
	b.cut(allKinds)
	b.closeIdle(time.Time{})
}

func (b *backend) stopTimers() {
	for _, t := range b.timers {
		t.Stop()
	}
	b.timers = nil
}

// down notes that the backend could not be reached.
func (b *backend) down() { b.avoid.Store(time.Now().Add(avoidFor).UnixNano()) }

// avoided reports whether others are to be preferred.
func (b *backend) avoided() bool {
	until := b.avoid.Load()
	return until != 0 && time.Now().UnixNano() < until
}
