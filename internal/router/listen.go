package router

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

const (
	headerTimeout  = 10 * time.Second // for a client to send its request header
	clientIdle     = 2 * time.Minute  // between requests of a kept-alive client
	maxHeaderBytes = 64 << 10
	// closedGrace is how long requests on an address that is no longer used may go on.
	closedGrace = time.Minute
)

// listener is one open address.
type listener struct {
	addr   string
	socket net.Listener
	server *http.Server
	secret atomic.Pointer[tls.Config] // nil: plain HTTP
}

// Accept makes a connection speak TLS if the address does now.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.socket.Accept()
	if err != nil {
		return nil, err
	}
	if config := l.secret.Load(); config != nil {
		return tls.Server(c, config), nil
	}
	return c, nil
}

func (l *listener) Addr() net.Addr { return l.socket.Addr() }
func (l *listener) Close() error   { return l.socket.Close() }

// show sets what new connections see; nil: plain HTTP.
func (l *listener) show(id *identity) {
	if id == nil {
		l.secret.Store(nil)
		return
	}
	l.secret.Store(id.config)
}

// openFor opens the table's address if it is not open yet. It returns nil if
// there is nothing to open.
func (r *router) openFor(ctx context.Context, table rollout.Table) (*listener, error) {
	if table.Listen == "" || r.listeners[table.Listen] != nil {
		return nil, nil
	}
	return r.open(ctx, table.Listen)
}

func (r *router) open(ctx context.Context, addr string) (*listener, error) {
	socket, err := r.bind(ctx, addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fault.New(fault.Conflict, "address %s is in use", addr).At(addr).
			Mend("choose another listen: for the environment, or find the program with  ss -ltnp 'sport = :%s'", portOf(addr))
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot listen on %s: %w", addr, err).At(addr).
			Mend("choose an address of this host under listen:")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &listener{addr: addr, socket: socket, server: &http.Server{
		Handler:           r.handler(addr),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       clientIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          debugLog(r.log),
		ConnState:         r.count,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}}, nil
}

// bind opens an address, or finds it among those that the router before had open.
func (r *router) bind(ctx context.Context, addr string) (net.Listener, error) {
	if socket := r.inherited[addr]; socket != nil {
		delete(r.inherited, addr)
		return socket, nil
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// count keeps the number of clients' connections, but for those that were upgraded.
func (r *router) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		r.clients.Add(1)
	case http.StateClosed, http.StateHijacked:
		r.clients.Add(-1)
	case http.StateActive, http.StateIdle:
	}
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr) //nolint:errcheck // normal has checked it
	return port
}

// serve begins to accept on an opened address.
func (r *router) serve(l *listener) {
	r.listeners[l.addr] = l
	delete(r.warned, l.addr)
	l.show(r.identities[l.addr])
	go l.server.Serve(l) //nolint:errcheck // it ends with ErrServerClosed or because the socket was closed
	r.log.Info("listens", "listen", l.addr)
}

// abandon closes an address that was never served.
func (l *listener) abandon() {
	l.socket.Close() //nolint:errcheck // nothing was accepted
}

// drain stops accepting at once, and serving when the requests under way are done
// or ctx ends.
func (l *listener) drain(ctx context.Context) {
	l.socket.Close() //nolint:errcheck // Shutdown closes it again
	if err := l.server.Shutdown(ctx); err != nil {
		l.server.Close() //nolint:errcheck // the connections are gone either way
	}
}

// closeUnused closes the addresses that no table uses any more.
func (r *router) closeUnused() {
	used := map[string]bool{}
	for _, env := range r.envs {
		used[env.table.Listen] = true
	}
	for addr, l := range r.listeners {
		if used[addr] {
			continue
		}
		delete(r.listeners, addr)
		l.socket.Close() //nolint:errcheck // so that the address is free when apply returns; drain does the rest
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), closedGrace)
			defer cancel()
			l.drain(ctx)
		}()
		r.log.Info("listens no more", "listen", addr)
	}
}

// reopen tries addresses of tables in force that could not be opened when the
// router started.
func (r *router) reopen(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, env := range r.envs {
		l, err := r.openFor(ctx, env.table)
		if err != nil {
			if !r.warned[env.table.Listen] {
				r.log.Error("cannot listen, trying again every second", "app", key.App, "env", key.Env, "err", err)
			}
			r.warned[env.table.Listen] = true
			continue
		}
		if l != nil {
			r.serve(l)
		}
	}
}

// debugLog lets net/http narrate about broken connections at debug level.
func debugLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
