package router

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = time.Second // backends are on this host or next to it
	// unackedTimeout ends connections whose other end has vanished without a word, or
	// takes nothing of what was sent to it.
	unackedTimeout = 30 * time.Second
)

var errBigHeader = fmt.Errorf("the header of the answer is larger than %d bytes", maxAnswerHeader)

// conn is a connection to a backend. For HTTP/1.1 it belongs to one request at a
// time, whose own goroutine writes and reads it: handing each request to
// goroutines of the connection, as http.Transport does, costs more than all the rest.
type conn struct {
	*net.TCPConn
	of      *backend
	kind    kind                // of the request that has it; guarded by of.mu
	since   time.Time           // when it became idle, or its request began; guarded by of.mu
	busy    bool                // a request has it; guarded by of.mu
	client  http.ResponseWriter // of that request; guarded by of.mu
	r       *bufio.Reader
	w       *bufio.Writer
	reused  bool
	header  int // bytes that may still be read of a header; -1: any number
	raw     syscall.RawConn
	probe   func(fd uintptr) bool
	alive   bool // what probe found
	abort   func()
	wasCut  atomic.Bool
	oneByte [1]byte
}

// dial makes a connection for requests of a kind.
func (b *backend) dial(ctx context.Context, k kind) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: limitUnacked}
	nc, err := d.DialContext(ctx, "tcp", b.address)
	if err != nil {
		return nil, &dialError{err}
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(&dialError{fmt.Errorf("%s is not a TCP address", b.address)}, nc.Close())
	}
	c := &conn{TCPConn: tcp, of: b, kind: k, since: time.Now(), busy: true, header: -1}
	c.r, c.w = bufio.NewReader(c), bufio.NewWriter(c)
	c.abort = func() { c.TCPConn.Close() } //nolint:errcheck // there is nothing to do about a connection that does not close
	c.probe = c.look
	if c.raw, err = tcp.SyscallConn(); err != nil {
		return nil, errors.Join(&dialError{err}, nc.Close())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over.has(k) {
		return nil, errors.Join(&dialError{errCut}, nc.Close())
	}
	if b.conns == nil {
		b.conns = map[*conn]struct{}{}
	}
	b.conns[c] = struct{}{}
	b.avoid.Store(0)
	return c, nil
}

// connect gives an HTTP/1.1 connection: one that is there, or a new one.
func (b *backend) connect(ctx context.Context, client http.ResponseWriter, now time.Time) (*conn, error) {
	for {
		c, err := b.unused(client, now)
		if err != nil {
			return nil, err
		}
		if c == nil {
			if c, err = b.dial(ctx, plain); err == nil {
				c.serve(client)
			}
			return c, err
		}
		if c.ready() {
			c.reused = true
			return c, nil
		}
		c.Close() //nolint:errcheck // the other end has closed it already
	}
}

// unused takes the connection that became idle last; nil if there is none.
func (b *backend) unused(client http.ResponseWriter, now time.Time) (*conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over.has(plain) {
		return nil, &dialError{errCut}
	}
	if len(b.idle) == 0 {
		return nil, nil
	}
	c := b.idle[len(b.idle)-1]
	b.idle = b.idle[:len(b.idle)-1]
	c.kind, c.since, c.busy, c.client = plain, now, true, client
	return c, nil
}

// keep puts a connection aside for the next request.
func (b *backend) keep(c *conn) {
	shut := b.state.Load()&shutBit != 0
	b.mu.Lock()
	c.since, c.busy, c.client = time.Now(), false, nil
	full := shut || len(b.idle) >= maxIdle || b.over.has(plain)
	if !full {
		b.idle = append(b.idle, c)
	}
	b.mu.Unlock()
	if full {
		c.Close() //nolint:errcheck // nothing is under way on it
	} else if b.state.Load()&shutBit != 0 {
		b.closeIdle(time.Time{}) // shut came between
	}
}

// closeIdle closes unused connections that became idle before a time; the zero
// time means all.
func (b *backend) closeIdle(before time.Time) {
	b.mu.Lock()
	n, calls := len(b.idle), b.calls
	if !before.IsZero() {
		n, _ = slices.BinarySearchFunc(b.idle, before, func(c *conn, t time.Time) int { return c.since.Compare(t) })
	}
	old := slices.Clone(b.idle[:n])
	b.idle = slices.Delete(b.idle, 0, n)
	b.mu.Unlock()
	for _, c := range old {
		c.Close() //nolint:errcheck // nothing is under way on it
	}
	if before.IsZero() && calls != nil {
		calls.CloseIdleConnections()
	}
}

// become notes what the request on the connection has turned into.
func (c *conn) become(k kind) {
	c.of.mu.Lock()
	c.kind = k
	over := c.of.over.has(k)
	c.of.mu.Unlock()
	if over {
		c.cut()
	}
}

// serve notes who waits for what comes.
func (c *conn) serve(client http.ResponseWriter) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.client = client
}

// cut closes the connection under its request. A client that takes nothing of its
// answer is not waited for either.
func (c *conn) cut() {
	c.wasCut.Store(true)
	c.abort()
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.client != nil {
		http.NewResponseController(c.client).SetWriteDeadline(time.Now()) //nolint:errcheck // it was upgraded, or has gone
	}
}

// Read holds back more than the header that may be read. What goes wrong on a
// connection that was cut is that.
func (c *conn) Read(p []byte) (int, error) {
	if c.header == 0 {
		return 0, errBigHeader
	}
	if c.header > 0 && len(p) > c.header {
		p = p[:c.header]
	}
	n, err := c.TCPConn.Read(p)
	if c.header > 0 {
		c.header -= n
	}
	if err != nil && c.wasCut.Load() {
		err = errCut
	}
	return n, err
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.client = nil
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// ready says whether an idle connection is still good: not closed by the other
// end, and nothing unasked for has come.
func (c *conn) ready() bool {
	c.alive = false
	err := c.raw.Read(c.probe)
	return err == nil && c.alive
}

func (c *conn) look(fd uintptr) bool {
	_, err := unix.Read(int(fd), c.oneByte[:])
	c.alive = err == unix.EAGAIN //nolint:errorlint // a bare errno
	return true
}

// limitUnacked bounds how long sent bytes may stay unacknowledged (tcp(7), TCP_USER_TIMEOUT).
func limitUnacked(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout.Milliseconds()))
	})
	return errors.Join(err, failed)
}
