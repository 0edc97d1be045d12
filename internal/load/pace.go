package load

import (
	"context"
	"sync"
	"time"
)

// catchUp is how far behind its rate a run may fall and still make up for it.
const catchUp = 50 * time.Millisecond

// pace hands out moments to send at, evenly spread, to all workers.
type pace struct {
	every time.Duration

	mu   sync.Mutex
	next time.Time
}

func newPace(rate int) *pace {
	return &pace{every: time.Second / time.Duration(rate), next: time.Now()}
}

// wait returns true at the next moment, or false when ctx ends.
func (p *pace) wait(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	p.mu.Lock()
	if earliest := now.Add(-catchUp); p.next.Before(earliest) {
		p.next = earliest
	}
	at := p.next
	p.next = at.Add(p.every)
	p.mu.Unlock()
	if !at.After(now) {
		return true
	}
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
