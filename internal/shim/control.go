package shim

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// order is a Request that waits for its answer.
type order struct {
	Request
	from *peer
}

// peer is one connection.
type peer struct {
	conn net.Conn
	mu   sync.Mutex
}

func (p *peer) send(m Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A peer that does not read must not hold up the others.
	if err := p.conn.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
		err = json.NewEncoder(p.conn).Encode(m)
		if err == nil {
			return
		}
	}
	_ = p.conn.Close() // its reader ends and forgets it
}

// control is the shim's side of the protocol.
type control struct {
	orders chan order
	first  chan struct{} // closed when the first connection ends

	mu    sync.Mutex
	last  Message
	peers map[*peer]bool
}

func newControl() *control {
	return &control{
		orders: make(chan order),
		first:  make(chan struct{}),
		last:   Message{State: Blank},
		peers:  map[*peer]bool{},
	}
}

// listen accepts connections of the shim's own user on dir's socket.
func (c *control) listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketFile)
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed: the shim is about to leave
			}
			if !trusted(conn) {
				_ = conn.Close() // nothing to say to a stranger
				continue
			}
			go c.serve(c.greet(conn))
		}
	}()
	return l, nil
}

// trusted says whether the peer runs as the same user.
func trusted(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return errors.Join(err, credErr) == nil && int(cred.Uid) == os.Geteuid()
}

// greet tells a new connection the state. It holds the lock, so that the next
// state cannot come before this one.
func (c *control) greet(conn net.Conn) *peer {
	p := &peer{conn: conn}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers[p] = true
	p.send(c.last)
	return p
}

// serve takes the orders of one connection until it ends.
func (c *control) serve(p *peer) {
	for dec := json.NewDecoder(p.conn); ; {
		var r Request
		if dec.Decode(&r) != nil {
			break
		}
		c.orders <- order{Request: r, from: p}
	}
	c.mu.Lock()
	delete(c.peers, p)
	c.mu.Unlock()
	_ = p.conn.Close() // it has ended
}

func (c *control) serveFirst(p *peer) {
	c.serve(p)
	close(c.first)
}

// say tells everybody the new state; answer is who asked for it, if anybody.
func (c *control) say(m Message, answer *order) {
	c.mu.Lock()
	c.last = m
	peers := make([]*peer, 0, len(c.peers))
	for p := range c.peers {
		peers = append(peers, p)
	}
	c.mu.Unlock()
	for _, p := range peers {
		if answer == nil || p != answer.from {
			p.send(m)
		}
	}
	if answer != nil {
		m.Re = answer.Seq
		answer.from.send(m)
	}
}

// refuse answers an order without changing the state; nil: nothing is wrong.
func (c *control) refuse(o order, f *Failure) {
	c.mu.Lock()
	m := c.last
	c.mu.Unlock()
	m.Re, m.Error = o.Seq, f
	o.from.send(m)
}
