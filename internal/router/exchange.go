package router

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// flushAfter bounds how long bytes of a response with a known length wait for
// more. Responses of unknown length, event streams among them, never wait.
const flushAfter = 5 * time.Millisecond

// Why a request found no backend.
var (
	errNoRoute   = errors.New("nothing is routed here")
	errHeldOut   = errors.New("no instance became ready in time")
	errTooMany   = errors.New("too many requests wait for an instance")
	errUnreached = errors.New("no instance accepts connections")
)

// exchange is one request on its way through the router. It is the RoundTripper
// of its own ReverseProxy, so that a failed attempt can go to another backend;
// both are used again for later requests.
type exchange struct {
	router *router
	proxy  httputil.ReverseProxy

	listen  string
	in      *http.Request
	client  http.ResponseWriter
	ctx     context.Context // of in
	snap    *snapshot
	svc     *service
	backend *backend // that counts this request; nil: none
	group   *group   // of backend
	matched bool     // group is that of the service's Match
	kind    kind
	answer  interface{ failure() error } // the body of the backend's answer; nil: there is none
	tried   []*backend                   // that failed this request
	until   time.Time                    // when it is held no longer; zero: it was not held
	knock   time.Duration
	retried bool
	status  int  // of the backend's answer
	failed  bool // the router has counted a failure
}

func newExchange(r *router) *exchange {
	x := &exchange{router: r}
	x.proxy = httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      x,
		FlushInterval:  flushAfter,
		BufferPool:     buffers{},
		ModifyResponse: x.answered,
		ErrorHandler:   x.fail,
		ErrorLog:       debugLog(r.log),
	}
	return x
}

// handler serves one listen address.
func (r *router) handler(listen string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		snap := r.current.Load()
		svc := snap.match(listen, req.Host, req.URL.Path)
		if svc == nil || req.Method == http.MethodConnect {
			refuse(w, http.StatusNotFound, errNoRoute.Error())
			return
		}
		r.active.Add(1)
		if r.retiring.Load() && req.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close") // the client's next connection is with the next router
		}
		x := r.exchanges.Get().(*exchange)
		x.listen, x.in, x.client, x.ctx, x.snap, x.svc = listen, req, w, req.Context(), snap, svc
		svc.counters.requests.Add(1)
		defer x.end()
		x.proxy.ServeHTTP(w, req)
		x.in = nil // says to end that ServeHTTP came back
	})
}

// end gives the backend back and the exchange to the next request. A panic of
// ReverseProxy, which is how it breaks off a response, passes through.
func (x *exchange) end() {
	switch brokenOff := x.in != nil && !x.failed; {
	case x.brokenByBackend():
		x.group.traffic.broken.Add(1)
		if brokenOff {
			x.svc.counters.failed.Add(1)
		}
	case brokenOff && x.backend != nil && x.backend.isOver(x.kind):
		x.svc.counters.failed.Add(1)
	case brokenOff:
		x.svc.counters.gone.Add(1)
	}
	x.drop()
	x.router.active.Add(-1)
	clear(x.tried)
	x.in, x.client, x.ctx, x.snap, x.svc, x.group, x.answer, x.tried = nil, nil, nil, nil, nil, nil, nil, x.tried[:0]
	x.until, x.knock, x.kind, x.retried, x.failed, x.matched = time.Time{}, 0, plain, false, false, false
	x.router.exchanges.Put(x)
}

// brokenByBackend says whether an answer below 500 was broken off, neither by the
// client nor by the end of a drain.
func (x *exchange) brokenByBackend() bool {
	if x.answer == nil || x.backend == nil || x.status >= 500 || x.ctx.Err() != nil {
		return false
	}
	err := x.answer.failure()
	return err != nil && !errors.Is(err, errCut) && !x.backend.isOver(x.kind)
}

// drop ends the count of this request at its backend.
func (x *exchange) drop() {
	if x.backend == nil {
		return
	}
	if x.kind != plain {
		x.backend.special[x.kind].Add(-1)
	}
	x.backend.release()
	x.backend = nil
}

// RoundTrip sends the request to a backend. When that fails, and sending it again
// cannot do harm, it sends it to another one.
func (x *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	body := out.Body
	for {
		if err := x.acquire(out.Context()); err != nil {
			return nil, err
		}
		out.URL.Scheme, out.URL.Host = "http", x.backend.address
		attempt := guard(x.in, out, body)
		resp, err := x.send(out)
		if err == nil {
			return resp, nil
		}
		if !x.another(out, attempt, err) {
			return nil, err
		}
		if x.until.IsZero() {
			x.svc.counters.retried.Add(1)
		}
		x.tried = append(x.tried, x.backend)
		x.drop()
		out = again(out)
	}
}

// send sends the request to the backend at hand and counts what comes of it.
func (x *exchange) send(out *http.Request) (resp *http.Response, err error) {
	began := time.Now()
	var c *conn
	if x.kind == grpc {
		resp, err = x.backend.call(out)
	} else {
		resp, c, err = x.backend.send(out, x.client, began)
	}
	if err != nil {
		if x.until.IsZero() && out.Context().Err() == nil && !errors.Is(err, errHalf) && !x.backend.isOver(x.kind) {
			x.group.traffic.missing.Add(1)
		}
		return nil, err
	}
	x.group.traffic.answered(resp.StatusCode, time.Since(began))
	x.status = resp.StatusCode
	x.answer, _ = resp.Body.(interface{ failure() error })
	if k := kindOf(resp); c != nil && x.answer != nil && k != plain {
		x.backend.special[k].Add(1)
		x.kind = k
		c.become(k)
	}
	return resp, nil
}

// another decides whether a failed request goes to another backend: always when
// nothing was sent, and once when it may be repeated (RFC 9110, 9.2.2).
func (x *exchange) another(out *http.Request, attempt *attemptBody, err error) bool {
	if out.Context().Err() != nil || !attempt.unread() {
		return false
	}
	var unreached *dialError
	if errors.As(err, &unreached) {
		x.backend.down()
		return true
	}
	if x.retried || !repeatable(out) {
		return false
	}
	x.retried = true
	return true
}

// repeatable reports whether a request without body may be sent twice.
func repeatable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// again copies a request for its next attempt: the transport may still look at the last one.
func again(req *http.Request) *http.Request {
	next := req.WithContext(req.Context())
	next.URL = new(url.URL)
	*next.URL = *req.URL
	return next
}

// rewrite tells the backend who asked. Host, path and query stay as they came.
func rewrite(pr *httputil.ProxyRequest) {
	pr.SetXForwarded()
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	if strings.EqualFold(pr.Out.Header.Get("Upgrade"), "h2c") {
		// A tunnel of HTTP/2 would carry requests past the routing.
		pr.Out.Header.Del("Upgrade")
		pr.Out.Header.Del("Connection")
		pr.Out.Header.Del("Http2-Settings")
	}
}

func (x *exchange) answered(resp *http.Response) error {
	x.svc.counters.answered(resp.StatusCode)
	x.pin(resp)
	return nil
}

// fail answers a request that no backend answered.
func (x *exchange) fail(w http.ResponseWriter, req *http.Request, err error) {
	x.failed = true
	if req.Context().Err() != nil {
		x.svc.counters.gone.Add(1)
		refuse(w, http.StatusBadGateway, "the client went away")
		return
	}
	status, why := http.StatusBadGateway, "the instance broke off the request"
	for _, none := range []error{errNoRoute, errHeldOut, errTooMany, errUnreached} {
		if errors.Is(err, none) {
			status, why = http.StatusServiceUnavailable, none.Error()
			w.Header().Set("Retry-After", "1")
		}
	}
	x.svc.counters.failed.Add(1)
	x.svc.counters.answered(status)
	if x.svc.counters.mayWarn(time.Now()) {
		x.router.log.Warn("request failed", "app", x.svc.env.App, "env", x.svc.env.Env, "service", x.svc.name, "status", status, "err", err)
	}
	refuse(w, status, why)
}

// refuse writes the router's own small answers.
func refuse(w http.ResponseWriter, status int, why string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s: %s\n", status, http.StatusText(status), why) //nolint:errcheck // the client went away
}

// buffers are what bodies are copied through.
type buffers struct{}

var bufferPool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return bufferPool.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { bufferPool.Put((*[32 << 10]byte)(b)) }

// acquire finds a backend that takes the request, waiting for one if need be.
func (x *exchange) acquire(ctx context.Context) error {
	for {
		stale := x.take()
		if x.backend != nil {
			return nil
		}
		if !stale {
			return x.hold(ctx)
		}
		if err := x.look(); err != nil {
			return err
		}
	}
}

// take asks the service of the snapshot at hand for a backend.
func (x *exchange) take() (stale bool) {
	prefer, matched := x.svc.prefers(x.in)
	x.backend, x.group, stale = x.svc.take(prefer, x.tried)
	x.matched = matched && x.group == prefer
	if x.backend != nil && isGRPC(x.in) {
		x.kind = grpc
		x.backend.special[grpc].Add(1)
	}
	return stale
}

// look turns to the snapshot in force.
func (x *exchange) look() error {
	x.snap = x.router.current.Load()
	svc := x.snap.match(x.listen, x.in.Host, x.in.URL.Path)
	if svc == nil {
		return errNoRoute
	}
	x.svc = svc
	return nil
}
