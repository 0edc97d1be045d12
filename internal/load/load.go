package load

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// The bounds of a run.
const (
	DefaultRate = 1000 // requests per second
	MaxRate     = 50_000
	MaxWorkers  = 256
	DefaultFor  = time.Minute
	MaxFor      = 10 * time.Minute
	maxErrors   = 10
	maxMarkers  = 64
)

// Config says what to ask and how hard. Zero values mean the defaults named.
type Config struct {
	URL  string // http only, at an address of this machine
	Host string // Host header; default: that of URL

	KeepAlive int // workers that keep their connection
	NewConn   int // workers that make a new connection for every request
	HTTP2     int // workers with one HTTP/2 connection (prior knowledge) each

	Rate    int           // requests per second of all workers together; default DefaultRate, at most MaxRate
	For     time.Duration // how long at most; default DefaultFor, at most MaxFor
	Timeout time.Duration // of each request; default 10s

	// Check judges a complete answer, with at most 1 MiB of its body; default: the
	// status is 200 to 299. It is called by many goroutines at once.
	Check func(status int, body []byte) error

	MarkerHeader string   // response header whose value is the answer's marker
	Markers      []string // otherwise the first of these that the body contains is its marker
}

// Run is a load under way. Its methods are safe for concurrent use.
type Run struct {
	cfg     Config
	started time.Time
	cancel  context.CancelFunc
	pace    *pace
	workers []*worker
	done    sync.WaitGroup

	mu    sync.Mutex
	ended time.Time
}

// Start begins to ask. It goes on until Stop, the end of ctx or Config.For,
// whichever is first.
func Start(ctx context.Context, cfg Config) (*Run, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	target, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	addr, err := ownAddress(ctx, target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.For)
	r := &Run{cfg: cfg, started: time.Now(), cancel: cancel, pace: newPace(cfg.Rate)}
	for how, n := range map[kind]int{keepAlive: cfg.KeepAlive, newConn: cfg.NewConn, http2: cfg.HTTP2} {
		for range n {
			r.workers = append(r.workers, newWorker(cfg, how, addr))
		}
	}
	for _, w := range r.workers {
		r.done.Go(func() { w.work(ctx, r.pace) })
	}
	return r, nil
}

// complete fills in defaults and refuses what is out of bounds.
func (c *Config) complete() error {
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.For == 0 {
		c.For = DefaultFor
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Check == nil {
		c.Check = success
	}
	workers := c.KeepAlive + c.NewConn + c.HTTP2
	switch {
	case c.KeepAlive < 0 || c.NewConn < 0 || c.HTTP2 < 0 || workers < 1 || workers > MaxWorkers:
		return fmt.Errorf("load: %d workers are not within 1 to %d", workers, MaxWorkers)
	case c.Rate < 1 || c.Rate > MaxRate:
		return fmt.Errorf("load: rate %d is not within 1 to %d per second", c.Rate, MaxRate)
	case c.For < 0 || c.For > MaxFor:
		return fmt.Errorf("load: %s is not within 0s to %s", c.For, MaxFor)
	case c.Timeout < 0 || len(c.Markers) > maxMarkers:
		return fmt.Errorf("load: timeout %s or %d markers out of bounds", c.Timeout, len(c.Markers))
	}
	return nil
}

func success(status int, _ []byte) error {
	if status < 200 || status > 299 {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// Stop lets the requests under way finish and reports. Further calls report the same.
func (r *Run) Stop() Report {
	r.cancel()
	r.done.Wait()
	r.mu.Lock()
	if r.ended.IsZero() {
		r.ended = time.Now()
	}
	r.mu.Unlock()
	return r.Report()
}

// Report tells what has been measured so far.
func (r *Run) Report() Report {
	var sum tally
	for _, w := range r.workers {
		sum.add(w.look())
	}
	r.mu.Lock()
	end := r.ended
	r.mu.Unlock()
	if end.IsZero() {
		end = time.Now()
	}
	return sum.report(r.started, end)
}
