package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"
)

const maxBody = 1 << 20

// kind is a way to use connections.
type kind string

const (
	keepAlive kind = "keep-alive"
	newConn   kind = "new connection"
	http2     kind = "http/2"
)

// worker asks one request after another.
type worker struct {
	cfg       Config
	kind      kind
	transport *http.Transport
	body      bytes.Buffer

	mu sync.Mutex
	tally
}

func newWorker(cfg Config, k kind, addr string) *worker {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(k != http2)
	protocols.SetUnencryptedHTTP2(k == http2)
	return &worker{cfg: cfg, kind: k, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
		Protocols:          protocols,
		DisableKeepAlives:  k == newConn,
		DisableCompression: true,
	}}
}

// work asks until ctx ends. The request under way then is finished, not counted as failed.
func (w *worker) work(ctx context.Context, p *pace) {
	defer w.transport.CloseIdleConnections()
	for p.wait(ctx) {
		w.ask(context.WithoutCancel(ctx))
	}
}

// ask sends one request and counts its answer.
func (w *worker) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	conns := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }})
	a := answer{sent: time.Now()}
	a.err = w.exchange(ctx, &a)
	a.took = time.Since(a.sent)
	a.replayed = conns > 1
	if a.err != nil {
		a.err = fmt.Errorf("%s: %w", w.kind, a.err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(a)
}

func (w *worker) exchange(ctx context.Context, a *answer) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.cfg.URL, nil)
	if err != nil {
		return err
	}
	if w.cfg.Host != "" {
		req.Host = w.cfg.Host
	}
	resp, err := w.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	a.began = time.Now()
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	w.body.Reset()
	if _, err := w.body.ReadFrom(io.LimitReader(resp.Body, maxBody)); err != nil {
		return fmt.Errorf("answer broke off: %w", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("answer broke off: %w", err)
	}
	a.marker = w.marker(resp.Header)
	return w.cfg.Check(resp.StatusCode, w.body.Bytes())
}

// marker tells which version answered; empty if nothing does.
func (w *worker) marker(h http.Header) string {
	if w.cfg.MarkerHeader != "" {
		return h.Get(w.cfg.MarkerHeader)
	}
	for _, m := range w.cfg.Markers {
		if bytes.Contains(w.body.Bytes(), []byte(m)) {
			return m
		}
	}
	return ""
}

// look gives a copy of what was counted so far.
func (w *worker) look() tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clone()
}

// ownAddress resolves the URL's host and makes sure that it is this machine.
func ownAddress(ctx context.Context, target *url.URL) (string, error) {
	if target.Scheme != "http" || target.Hostname() == "" {
		return "", fmt.Errorf("load: %q is not an http:// URL", target)
	}
	port := target.Port()
	if port == "" {
		port = "80"
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", target.Hostname())
	if err != nil {
		return "", fmt.Errorf("load: %w", err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("load: %w", err)
	}
	for _, ip := range ips {
		if !isOwn(ip, own) {
			return "", fmt.Errorf("load: %s is not an address of this machine (%s)", target.Hostname(), strings.TrimSpace(ip.String()))
		}
	}
	return net.JoinHostPort(ips[0].String(), port), nil
}

func isOwn(ip net.IP, own []net.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}
