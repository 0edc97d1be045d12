package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = time.Second // backends are on this host or next to it
	// idleTimeout is shorter than the keep-alive time of common servers (Node.js: 5 s), so
	// that it is rarely the backend that closes a connection just as a request is sent.
	idleTimeout = 4 * time.Second
	// unackedTimeout ends connections whose other end has vanished without a word.
	unackedTimeout = 10 * time.Second
	// avoidFor is how long a backend that could not be reached is only the last choice.
	avoidFor = 250 * time.Millisecond
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
	id        string
	address   string
	transport *http.Transport
	state     atomic.Int64 // shutBit | requests under way
	avoid     atomic.Int64 // Unix nanoseconds until which others are preferred; 0: not at all

	timer *time.Timer // of the drain, while leaving; guarded by router.mu

	mu    sync.Mutex
	conns map[*conn]struct{} // nil once cut
}

func newBackend(id, address string) *backend {
	b := &backend{id: id, address: address, conns: map[*conn]struct{}{}}
	b.state.Store(shutBit)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	b.transport = &http.Transport{
		DialContext:            b.dial,
		Protocols:              protocols,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         8 << 10,
		WriteBufferSize:        8 << 10,
	}
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
		b.transport.CloseIdleConnections()
	}
}

// open lets requests in (again).
func (b *backend) open() { b.state.And(^shutBit) }

// shut keeps new requests out.
func (b *backend) shut() {
	b.state.Or(shutBit)
	b.transport.CloseIdleConnections()
}

// inFlight is the number of requests under way.
func (b *backend) inFlight() int { return int(b.state.Load() &^ shutBit) }

// cut closes every connection, for good, and returns how many requests that hit.
func (b *backend) cut() int {
	n := b.inFlight()
	b.mu.Lock()
	conns := b.conns
	b.conns = nil
	b.mu.Unlock()
	for c := range conns {
		c.TCPConn.Close() //nolint:errcheck // there is nothing to do about a connection that does not close
	}
	return n
}

// forget ends the drain timer and closes what is left.
func (b *backend) forget() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.cut()
}

// down notes that the backend could not be reached.
func (b *backend) down() { b.avoid.Store(time.Now().Add(avoidFor).UnixNano()) }

// avoided reports whether others are to be preferred.
func (b *backend) avoided() bool {
	until := b.avoid.Load()
	return until != 0 && time.Now().UnixNano() < until
}

func (b *backend) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: limitUnacked}
	c, err := d.DialContext(ctx, network, b.address)
	if err != nil {
		return nil, &dialError{err}
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(&dialError{fmt.Errorf("%s is not a TCP address", b.address)}, c.Close())
	}
	tracked := &conn{TCPConn: tcp, of: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns == nil {
		return nil, errors.Join(&dialError{errCut}, c.Close())
	}
	b.conns[tracked] = struct{}{}
	b.avoid.Store(0)
	return tracked, nil
}

// conn is a connection that its backend can cut.
type conn struct {
	*net.TCPConn
	of *backend
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// limitUnacked bounds how long sent bytes may stay unacknowledged (tcp(7), TCP_USER_TIMEOUT).
func limitUnacked(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout.Milliseconds()))
	})
	return errors.Join(err, failed)
}
