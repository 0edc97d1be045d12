package router

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

var errAttemptOver = errors.New("this attempt to send the request is over")

// The states of an attemptBody.
const (
	bodyFresh  = iota
	bodyRead   // at least one Read began
	bodyClosed // closed before any Read: whole for the next attempt
)

// attemptBody is a request's body as one attempt to send it sees it. The transport
// closes the body of an attempt that failed; the next attempt still needs it, and
// may have it if nothing was read. It also hands on the trailers, which are known
// when the body has been read.
type attemptBody struct {
	body    io.Reader
	in, out *http.Request
	state   atomic.Int32
}

// guard gives the outgoing request a body for one attempt; nil if it has none.
func guard(in, out *http.Request, body io.ReadCloser) *attemptBody {
	if body == nil || body == http.NoBody {
		return nil
	}
	b := &attemptBody{body: body, in: in, out: out}
	out.Body = b
	return b
}

func (b *attemptBody) Read(p []byte) (int, error) {
	if b.state.CompareAndSwap(bodyFresh, bodyRead) || b.state.Load() == bodyRead {
		n, err := b.body.Read(p)
		if errors.Is(err, io.EOF) {
			for name := range b.out.Trailer {
				b.out.Trailer[name] = b.in.Trailer[name]
			}
		}
		return n, err
	}
	return 0, errAttemptOver
}

// Close ends the attempt; ReverseProxy closes the real body at the end.
func (b *attemptBody) Close() error {
	b.state.CompareAndSwap(bodyFresh, bodyClosed)
	return nil
}

// unread closes the attempt and reports whether the body is still whole.
func (b *attemptBody) unread() bool {
	return b == nil || b.Close() == nil && b.state.Load() == bodyClosed
}
