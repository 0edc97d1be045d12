package router

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// callFailed holds the states of a gRPC call that are a failure of the backend, as
// 5xx is of other requests: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
var callFailed = map[string]bool{"2": true, "4": true, "13": true, "14": true, "15": true}

var errCallFailed = errors.New("the call failed by its gRPC status")

// call sends a gRPC request over HTTP/2. Its body, its answer and the trailers of
// both stream; connections are shared by many calls.
func (b *backend) call(out *http.Request) (*http.Response, error) {
	resp, err := b.http2().RoundTrip(out)
	if err != nil {
		return nil, err
	}
	resp.Body = &called{ReadCloser: resp.Body, resp: resp}
	return resp, nil
}

// http2 gives what keeps the connections for calls.
func (b *backend) http2() *http.Transport {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls == nil {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		b.calls = &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return b.dial(ctx, grpc) },
			Protocols:              protocols,
			DisableCompression:     true, // bodies pass as they are
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxAnswerHeader,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		}
	}
	return b.calls
}

// called is the body of the answer to a call. What the call came to is in the
// trailers, or in the header if there was nothing else.
type called struct {
	io.ReadCloser
	resp *http.Response
	err  error
}

func (c *called) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

func (c *called) failure() error {
	if c.err == nil && (callFailed[c.resp.Trailer.Get("Grpc-Status")] || callFailed[c.resp.Header.Get("Grpc-Status")]) {
		return errCallFailed
	}
	return c.err
}
