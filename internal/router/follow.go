package router

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// This file is the old router after a hand-over: it finishes what it has under the
// tables of the next one, whose view of it is in before.go.

const (
	followTick = 50 * time.Millisecond
	// tellTime is how long a router that is done waits for the next one to learn
	// its last counts.
	tellTime = 3 * time.Second
)

// follow serves the connections that this router still has, until the last is
// closed or its time is over. Each answer asks its client to close the connection;
// what is under way since before the hand-over is cut by its drain time.
func (r *router) follow(ctx context.Context, conn net.Conn) error {
	began := time.Now()
	longest := r.drainInherited(began)
	ended := make(chan struct{})
	server := &http.Server{Handler: r.followed(sync.OnceFunc(func() { close(ended) })), ErrorLog: debugLog(r.log)}
	alone := newSingle(conn)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		server.Serve(alone) //nolint:errcheck // it ends with its only connection
	}()
	defer server.Close() //nolint:errcheck // the next router sees its end

	over := time.After(longest + clientIdle)
	tick := time.NewTicker(followTick)
	defer tick.Stop()
	var done time.Time
	var told int64
	for {
		select {
		case now := <-tick.C:
			r.closeIdle(now.Add(-idleTimeout))
			if r.active.Load() > 0 || r.clients.Load() > 0 || r.before.get() != nil {
				done = time.Time{}
				continue
			}
			if done.IsZero() {
				done, told = now, r.told.Load()
			}
			if r.told.Load() == told && now.Sub(done) < tellTime {
				continue
			}
			r.log.Info("everything of before the hand-over is done", "after", time.Since(began))
			r.shutdown(0)
		case <-gone:
			r.log.Warn("the router that took over is gone, ending with what is under way", "grace", longest)
			r.shutdown(longest)
		case <-over:
			r.log.Warn("connections of before the hand-over are closed", "connections", r.clients.Load())
			r.shutdown(0)
		case <-ended:
			r.shutdown(r.grace)
		case <-ctx.Done():
			r.shutdown(r.grace)
		}
		return nil
	}
}

// drainInherited starts the drain times of what is under way, and gives the longest.
func (r *router) drainInherited(before time.Time) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, env := range r.envs {
		for _, svc := range env.table.Services {
			times := budgetsOf(svc)
			longest = max(longest, slices.Max(times[:]))
			for _, in := range svc.Backends {
				b := env.backends[in.ID]
				for d, set := range times.byTime() {
					time.AfterFunc(d, func() { r.cutInherited(key, b, set, before) })
				}
			}
		}
	}
	return longest
}

func (r *router) cutInherited(key rollout.Key, b *backend, set kindSet, before time.Time) {
	hit := b.cutBefore(set, before)
	if hit.sum() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.envs[key].noteCut(b.id, hit.flight(), time.Now())
	r.log.Warn("drain time is over since the hand-over, requests cut", "app", key.App, "env", key.Env, "backend", b.id, "requests", hit.sum())
}

// followed is the API for the next router.
func (r *router) followed(end func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/environments/{app}/{env}", func(w http.ResponseWriter, req *http.Request) {
		table, _, err := readTable(w, req)
		if err == nil {
			err = r.followTable(keyOf(req), table)
		}
		if err != nil {
			f := fault.Of(err)
			answer(w, f.Kind.HTTPStatus(), f)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/environments", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, r.all())
		r.told.Add(1)
	})
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, r.health()) })
	mux.HandleFunc("POST /v1/end", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent); end() })
	return mux
}

// followTable puts a table of the next router in force, which has checked and
// saved it, and has its address.
func (r *router) followTable(key rollout.Key, table rollout.Table) error {
	table, err := normal(key, table)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, err := r.inForce(key, table); known || err != nil {
		return err
	}
	r.install(key, table)
	r.before.pass(key, table)
	return nil
}

// single is a listener that accepts one connection.
type single struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
	taken  chan struct{}
}

func newSingle(c net.Conn) *single {
	s := &single{conn: c, closed: make(chan struct{}), taken: make(chan struct{}, 1)}
	s.taken <- struct{}{}
	return s
}

type singleConn struct {
	net.Conn
	of *single
}

func (c singleConn) Close() error { return errors.Join(c.of.Close(), c.Conn.Close()) }

func (s *single) Accept() (net.Conn, error) {
	select {
	case <-s.taken:
		return singleConn{s.conn, s}, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *single) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }
