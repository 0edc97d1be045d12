package router

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// passTime is how long the old router may take to answer the next one.
const passTime = 5 * time.Second

var errGone = errors.New("its connection has ended")

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
