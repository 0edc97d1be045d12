package shim

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"sync"
)

// ErrGone says that the connection to the shim ended.
var ErrGone = errors.New("the shim is gone")

// Client is the server's side of one connection. Its methods are safe for
// concurrent use.
type Client struct {
	conn net.Conn
	done chan struct{}

	mu      sync.Mutex
	seq     uint64
	waiting map[uint64]chan Message
}

// Dial connects to the shim of an instance's directory.
func Dial(dir string, said func(Message)) (*Client, error) {
	conn, err := net.Dial("unix", filepath.Join(dir, SocketFile))
	if err != nil {
		return nil, err
	}
	return NewClient(conn, said), nil
}

// NewClient speaks over conn. said is called with everything the shim says, in
// order, from one goroutine.
func NewClient(conn net.Conn, said func(Message)) *Client {
	c := &Client{conn: conn, done: make(chan struct{}), waiting: map[uint64]chan Message{}}
	go c.read(said)
	return c
}

func (c *Client) read(said func(Message)) {
	defer close(c.done)
	for dec := json.NewDecoder(c.conn); ; {
		var m Message
		if dec.Decode(&m) != nil {
			_ = c.conn.Close() // whatever ended it, it is over
			return
		}
		said(m)
		c.mu.Lock()
		answer := c.waiting[m.Re]
		delete(c.waiting, m.Re)
		c.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// Done is closed when the connection has ended, after the last call of said.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection; the shim goes on. Closing one that has ended is not an
// error: the shim may leave at the same moment.
func (c *Client) Close() error {
	if err := c.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Order sends an order and waits for its answer. The error is a *Failure if the shim
// refused, ErrGone if it ended, or the context's.
func (c *Client) Order(ctx context.Context, op string) (Message, error) {
	return c.order(ctx, Request{Op: op})
}

// Create sends OpCreate, like Order.
func (c *Client) Create(ctx context.Context, what Config) (Message, error) {
	return c.order(ctx, Request{Op: OpCreate, Create: &what})
}

// Probe sends OpProbe, like Order. A *Failure says why the instance is not healthy.
func (c *Client) Probe(ctx context.Context, what Probe) error {
	_, err := c.order(ctx, Request{Op: OpProbe, Probe: &what})
	return err
}

func (c *Client) order(ctx context.Context, r Request) (Message, error) {
	answer := make(chan Message, 1)
	c.mu.Lock()
	c.seq++
	r.Seq = c.seq
	c.waiting[r.Seq] = answer
	err := json.NewEncoder(c.conn).Encode(r)
	c.mu.Unlock()
	if err != nil {
		return Message{}, errors.Join(ErrGone, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return m, m.Error
		}
		return m, nil
	case <-c.done:
		return Message{}, ErrGone
	case <-ctx.Done():
		return Message{}, ctx.Err()
	}
}
