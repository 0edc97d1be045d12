package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// continueWait is how long the body of a request waits for the backend's 100 (Continue).
	continueWait = time.Second
	// writeEnd is how long after the end of an answer the end of its request is waited
	// for, so that the connection can be used again.
	writeEnd = 10 * time.Millisecond
)

// errSilent says that a connection that had been used before ended without a byte
// of an answer: most likely the backend closed it just then.
var errSilent = errors.New("the connection ended without an answer")

// errHalf says that the client did not send all of its request.
var errHalf = errors.New("the client broke off its request")

// send sends one HTTP/1.1 request to a backend and reads the header of the answer.
// The connection is free again when the answer's body was read to its end.
func (b *backend) send(out *http.Request, client http.ResponseWriter, now time.Time) (*http.Response, *conn, error) {
	for {
		c, err := b.connect(out.Context(), client, now)
		if err != nil {
			return nil, nil, err
		}
		resp, err := c.exchange(out)
		if err == nil {
			return resp, c, nil
		}
		c.Close() //nolint:errcheck // it is of no use any more
		if !c.reused || !errors.Is(err, errSilent) || !repeatable(out) || out.Context().Err() != nil {
			return nil, nil, err
		}
	}
}

// exchange writes a request and reads the header of its answer.
func (c *conn) exchange(out *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(out.Context(), c.abort)
	up, err := c.write(out)
	var resp *http.Response
	if err == nil {
		resp, err = c.read(out, up)
	}
	switch {
	case err != nil:
		stop()
		if c.wasCut.Load() {
			err = errCut
		} else if up != nil && up.failed.Load() {
			err = errHalf
		}
		return nil, err
	case resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body = &upgraded{c, stop}
		return resp, nil
	}
	a := &incoming{body: resp.Body, conn: c, up: up, stop: stop, again: !resp.Close}
	if resp.Body == http.NoBody {
		a.finish(true)
		return resp, nil
	}
	resp.Body = a
	return resp, nil
}

// write sends the request: at once if it has no body, else on a goroutine of its
// own, as the answer may come before the body has ended.
func (c *conn) write(out *http.Request) (*upload, error) {
	if out.Body == nil || out.Body == http.NoBody {
		err := out.Write(c.w)
		if err == nil {
			err = c.w.Flush()
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", errSilent, err)
		}
		return nil, err
	}
	up := &upload{ReadCloser: out.Body, conn: c, ended: make(chan error, 1), answered: make(chan struct{})}
	if strings.EqualFold(out.Header.Get("Expect"), "100-continue") {
		up.allowed = make(chan struct{})
	}
	body := *out
	body.Body = up
	go func() {
		err := errors.Join(body.Write(c.w), c.w.Flush())
		if up.failed.Load() {
			c.abort() // the backend would wait for the rest of the body for ever
		}
		up.ended <- err
	}()
	return up, nil
}

// read reads the header of the answer. Answers 1xx before it go to the trace in
// the request's context, where ReverseProxy passes them on.
func (c *conn) read(out *http.Request, up *upload) (*http.Response, error) {
	c.header = maxAnswerHeader
	defer func() { c.header = -1 }()
	if up != nil {
		defer close(up.answered)
	}
	if _, err := c.r.Peek(1); err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	for {
		resp, err := http.ReadResponse(c.r, out)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if resp.StatusCode == http.StatusContinue && up != nil {
			up.allow()
		}
		if t := httptrace.ContextClientTrace(out.Context()); t != nil && t.Got1xxResponse != nil {
			if err := t.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// upload is the body of a request on its way to a backend.
type upload struct {
	io.ReadCloser
	conn     *conn
	allowed  chan struct{} // closed with 100 (Continue); nil: it is not waited for
	answered chan struct{} // closed when the answer is there, or failed
	ended    chan error    // gets the result of writing the request
	passed   atomic.Bool   // allow was called
	begun    bool
	failed   atomic.Bool // the client did not send all of it
}

// Read sends what is buffered first: the client may wait for an answer to that.
func (u *upload) Read(p []byte) (int, error) {
	if err := u.conn.w.Flush(); err != nil {
		return 0, err
	}
	if !u.begun {
		u.begun = true
		if err := u.await(); err != nil {
			return 0, err
		}
	}
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.failed.Store(true)
	}
	return n, err
}

// await waits for the backend to want the body.
func (u *upload) await() error {
	if u.allowed == nil {
		return nil
	}
	over := time.NewTimer(continueWait)
	defer over.Stop()
	select {
	case <-u.allowed:
		return nil
	case <-over.C:
		return nil
	case <-u.answered:
		return errAttemptOver
	}
}

func (u *upload) allow() {
	if u.allowed != nil && !u.passed.Swap(true) {
		close(u.allowed)
	}
}

// incoming is the body of an answer on its way from a backend.
type incoming struct {
	body  io.Reader
	conn  *conn
	up    *upload
	stop  func() bool // of the watch over the request's context
	again bool        // the connection may be used again
	done  bool
	err   error // that broke it off
}

func (a *incoming) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if err != nil && !a.done {
		if !errors.Is(err, io.EOF) {
			a.err = err
		}
		a.finish(a.err == nil)
	}
	return n, err
}

// Close gives the connection up if the body was not read to its end.
func (a *incoming) Close() error {
	a.finish(false)
	return nil
}

func (a *incoming) failure() error { return a.err }

// finish keeps the connection for the next request, if this one is whole.
func (a *incoming) finish(whole bool) {
	if a.done {
		return
	}
	a.done = true
	if !a.stop() || !whole || !a.again || a.conn.r.Buffered() > 0 || !a.up.isEnded() {
		a.conn.Close() //nolint:errcheck // the request is over either way
		return
	}
	a.conn.of.keep(a.conn)
}

// isEnded says whether the request was written as a whole.
func (u *upload) isEnded() bool {
	if u == nil {
		return true
	}
	late := time.NewTimer(writeEnd)
	defer late.Stop()
	select {
	case err := <-u.ended:
		return err == nil
	case <-late.C:
		return false
	}
}

// upgraded is a connection that speaks another protocol from now on.
type upgraded struct {
	conn *conn
	stop func() bool
}

func (u *upgraded) Read(p []byte) (int, error)  { return u.conn.r.Read(p) }
func (u *upgraded) Write(p []byte) (int, error) { return u.conn.TCPConn.Write(p) }
func (u *upgraded) CloseWrite() error           { return u.conn.CloseWrite() }
func (u *upgraded) failure() error              { return nil }

func (u *upgraded) Close() error {
	u.stop()
	return u.conn.Close()
}
