package router

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// This file is the two sides of a hand-over after it: the old router, which
// finishes what it has under the tables of the next one; and the next one's view
// of it.

const (
	followTick = 50 * time.Millisecond
	// passTime is how long the old router may take to answer the next one.
	passTime = 5 * time.Second
	// tellTime is how long a router that is done waits for the next one to learn
	// its last counts.
	tellTime = 3 * time.Second
)

var errGone = errors.New("its connection has ended")

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
		table, err := decodeTable(http.MaxBytesReader(w, req.Body, maxTableBytes))
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

// before is the router that this one took over from, as long as it lives. Its
// methods are called with router.mu held where they change or tell the routes.
type before struct {
	log *slog.Logger

	mu     sync.Mutex
	client *Client                // nil: there is none (any more)
	last   map[rollout.Key]Status // what it said last: its counts go on in ours
	pids   []int                  // its process last, before it those that it took over from
}

// take makes the connection the way to ask.
func (b *before) take(conn net.Conn, log *slog.Logger) {
	conns := make(chan net.Conn, 1)
	conns <- conn
	transport := &http.Transport{MaxConnsPerHost: 1, DialContext: func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-conns:
			return c, nil
		default:
			return nil, errGone
		}
	}}
	b.log = log
	b.client = &Client{runDir: "the router before this one", http: &http.Client{Transport: transport, Timeout: passTime}}
	b.refresh()
}

func (b *before) get() *Client {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.client
}

// ask calls the old router. Where its connection has ended it is gone, with all it
// had. One that is silent is ended: nobody would know what it still uses.
func (b *before) ask(what func(*Client) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		return
	}
	err := what(b.client)
	if err == nil {
		return
	}
	b.client = nil
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() && len(b.pids) > 0 {
		pid := b.pids[len(b.pids)-1]
		b.log.Error("the router before this one is silent, ending it", "pid", pid, "err", syscall.Kill(pid, syscall.SIGKILL))
	} else {
		b.log.Info("the router before this one has ended", "err", err)
	}
	b.pids = nil
}

// pass hands a table on, so that connections that are still there follow it too.
// An old router that does not understand it can only end.
func (b *before) pass(key rollout.Key, table rollout.Table) {
	b.ask(func(c *Client) error {
		err := c.Apply(context.Background(), key, table)
		if err == nil || fault.Of(err).Kind == fault.Unavailable {
			return err
		}
		b.log.Warn("the router before this one refuses a table, it ends", "env", key.String(), "err", err)
		return askEnd(c)
	})
}

func askEnd(c *Client) error { return c.do(context.Background(), http.MethodPost, "/v1/end", nil, nil) }

// end asks the old router to end as well.
func (b *before) end() { b.ask(askEnd) }

// refresh learns what the old router has and has counted.
func (b *before) refresh() {
	b.ask(func(c *Client) error {
		h, err := c.Health(context.Background())
		if err != nil {
			return err
		}
		all, err := c.All(context.Background())
		if err != nil {
			return err
		}
		b.pids = append(h.Before, h.PID)
		b.last = map[rollout.Key]Status{}
		for _, s := range all {
			b.last[s.Key] = s
		}
		return nil
	})
}

// add puts that into a status.
func (b *before) add(s *Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, ok := b.last[s.Key]
	if !ok {
		return
	}
	if b.client == nil {
		last.InFlight, last.Kinds = nil, nil
	}
	s.merge(last)
}

// processes gives the old routers' process numbers.
func (b *before) processes() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.pids)
}

// merge adds another router's part of the same environment.
func (s *Status) merge(o Status) {
	for id, n := range o.InFlight {
		if n > 0 || s.InFlight[id] > 0 {
			s.InFlight[id] += n
		}
	}
	s.Kinds = sum(s.Kinds, o.Kinds, plus)
	s.Cut = sum(s.Cut, o.Cut, plus)
	s.CutTotal = plus(s.CutTotal, o.CutTotal)
	s.Traffic = sum(s.Traffic, o.Traffic, addTraffic)
	for i, svc := range s.Services {
		if j := slices.IndexFunc(o.Services, func(x ServiceStatus) bool { return x.Name == svc.Name }); j >= 0 {
			s.Services[i] = svc.plus(o.Services[j])
		}
	}
	for i, rel := range s.Releases {
		j := slices.IndexFunc(o.Releases, func(x ReleaseStatus) bool { return x.Service == rel.Service && x.Release == rel.Release })
		if j < 0 {
			continue
		}
		s.Releases[i].Took += o.Releases[j].Took
		for class, n := range o.Releases[j].Status {
			s.Releases[i].Status[class] += n
		}
	}
}

func sum[V any](a, b map[string]V, add func(V, V) V) map[string]V {
	if len(b) == 0 {
		return a
	}
	out := maps.Clone(b)
	for k, v := range a {
		if w, ok := out[k]; ok {
			v = add(v, w)
		}
		out[k] = v
	}
	return out
}

// addTraffic adds counts whose classes are the same, as they are but for another version.
func addTraffic(a, b rollout.Traffic) rollout.Traffic {
	a.Requests, a.Errors = a.Requests+b.Requests, a.Errors+b.Errors
	if len(a.Latency) == len(b.Latency) {
		a.Latency = slices.Clone(a.Latency)
		for i, n := range b.Latency {
			a.Latency[i] += n
		}
	}
	return a
}
