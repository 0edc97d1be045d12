package local

import (
	"context"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// How fast an instance is probed that has not answered yet. A command is a container of
// its own for each probe, so it is asked more gently.
const (
	firstWait = 2 * time.Millisecond
	lastWait  = 100 * time.Millisecond
	firstExec = 100 * time.Millisecond
	lastExec  = time.Second
)

// health turns probe results into a phase. Until an instance has been ready it is
// probed fast; then every Interval. An adopted instance is Unknown until its first
// result; if it had been ready, until a success or Failures failures, since one
// failure alone would not have made it Unready either.
type health struct {
	cfg release.Health

	mu         sync.Mutex
	phase      rollout.Phase
	wasReady   bool
	successes  int           // in a row
	since      time.Time     // the first of them
	failures   int           // in a row
	text       string        // of the last failure; empty after a success
	wait, last time.Duration // before the next probe and at most, until it is ready
}

func newHealth(cfg release.Health, adopted, wasReady bool) *health {
	h := &health{cfg: cfg, phase: rollout.Starting, wasReady: wasReady, wait: firstWait, last: lastWait}
	if len(cfg.Exec) > 0 {
		h.wait, h.last = firstExec, lastExec
	}
	if adopted {
		h.phase = rollout.Unknown
	}
	return h
}

// now gives the phase and the last failure.
func (h *health) now() (rollout.Phase, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase, h.text
}

// saw takes one result and says whether the phase changed, and how long to wait
// until the next probe.
func (h *health) saw(now time.Time, err error) (changed bool, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.phase
	if err == nil {
		h.succeed(now)
	} else {
		h.fail(err)
	}
	return h.phase != before, h.next(err)
}

func (h *health) succeed(now time.Time) {
	h.text, h.failures = "", 0
	if h.successes++; h.successes == 1 {
		h.since = now
	}
	settled := h.wasReady || now.Sub(h.since) >= time.Duration(h.cfg.SettleMS)*time.Millisecond
	switch {
	case h.phase == rollout.Unknown && h.wasReady, h.successes >= h.cfg.Successes && settled:
		h.phase, h.wasReady = rollout.Ready, true
	case h.phase == rollout.Unknown:
		h.phase = rollout.Starting
	}
}

func (h *health) fail(err error) {
	h.text, h.successes = err.Error(), 0
	h.failures++
	switch {
	case !h.wasReady:
		h.phase = rollout.Starting
	case h.failures >= h.cfg.Failures:
		h.phase = rollout.Unready
	}
}

func (h *health) next(err error) time.Duration {
	interval := time.Duration(h.cfg.IntervalMS) * time.Millisecond
	if err == nil || h.wasReady {
		return interval
	}
	wait := min(h.wait, max(interval, firstWait))
	h.wait = min(h.wait+h.wait/2, h.last)
	return wait
}

// run probes until ctx ends and tells every change of phase.
func (h *health) run(ctx context.Context, check func(context.Context) error, changed func(rollout.Phase)) {
	timeout := time.Duration(h.cfg.TimeoutMS) * time.Millisecond
	if timeout <= 0 {
		timeout = time.Second
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		one, cancel := context.WithTimeout(ctx, timeout)
		err := check(one)
		cancel()
		if ctx.Err() != nil {
			return
		}
		news, wait := h.saw(time.Now(), err)
		if news {
			phase, _ := h.now()
			changed(phase)
		}
		timer.Reset(wait)
	}
}
