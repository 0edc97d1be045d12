package local

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/shim"
)

// ahead holds what was made before anybody asked for an instance.
type ahead struct {
	mu       sync.Mutex
	blanks   []*blank             // born or on their way; the oldest first
	prepared map[string]*prepared // by instance ID
	until    time.Time            // what nobody uses until then goes, but for the reserve
	tended   bool                 // tend runs
	sooner   chan struct{}        // tells tend that something may be due sooner; capacity 1
	closed   bool

	started  bool      // an instance was, since it was last calm
	calm     time.Time // when it will have been calm for long enough; zero: it is
	reserve  int       // blanks that lie ready for the next change
	reserved time.Time // when the reserve goes
}

// Expect says that count instances will be asked for soon. What can be made before
// it is known what they are is made now. It returns at once. What is not used
// within a while goes again.
func (p *Platform) Expect(count int) {
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	if p.ahead.closed || count <= 0 {
		return
	}
	p.bearUpTo(count)
	p.keepAhead()
}

// bearUpTo makes it count blanks that lie ready. The lock is held.
func (p *Platform) bearUpTo(count int) {
	for len(p.ahead.blanks) < min(count, mostAhead) {
		p.ahead.blanks = append(p.ahead.blanks, p.bear())
	}
}

// keep puts one back that was taken for nothing.
func (p *Platform) keep(b *blank) {
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	p.ahead.blanks = append(p.ahead.blanks, b)
	if p.ahead.closed {
		p.watches.Go(func() { p.sendAway(0) })
		return
	}
	p.keepAhead()
}

// keepAhead lets all of it wait, from now on. The lock is held.
func (p *Platform) keepAhead() {
	p.ahead.until = time.Now().Add(p.cfg.patience)
	p.tendAhead()
}

// stirred says that an instance was started, or else that one was removed. Who has just
// deployed is the likeliest to do so again, or to roll back: once it is calm, blanks
// are born for that, and wait a good while.
func (p *Platform) stirred(started bool) {
	if p.cfg.reserve <= 0 {
		return
	}
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	if p.ahead.closed {
		return
	}
	p.ahead.started = p.ahead.started || started
	p.ahead.calm = time.Now().Add(calmAfter)
	p.tendAhead()
}

// tendAhead sees to it that tend runs. The lock is held.
func (p *Platform) tendAhead() {
	if !p.ahead.tended {
		p.ahead.tended = true
		p.watches.Go(p.tend)
	}
	select {
	case p.ahead.sooner <- struct{}{}:
	default: // it knows
	}
}

// tend has what lies ready made when it is calm, and sends it away when its time is over.
func (p *Platform) tend() {
	for {
		left, more := p.tendOnce(time.Now())
		if !more {
			return
		}
		select {
		case <-time.After(left):
		case <-p.ahead.sooner:
		case <-p.ctx.Done():
			return
		}
	}
}

// tendOnce does what is due, and says after which time something will be.
func (p *Platform) tendOnce(now time.Time) (left time.Duration, more bool) {
	running := p.running()
	p.ahead.mu.Lock()
	a := &p.ahead
	if !a.calm.IsZero() && !now.Before(a.calm) && !a.closed {
		if a.started {
			a.reserve, a.reserved = mostReserved, now.Add(p.cfg.reserve)
		}
		a.started, a.calm = false, time.Time{}
		a.reserve = min(a.reserve, running)
		p.bearUpTo(a.reserve)
	}
	if !now.Before(a.reserved) || running == 0 {
		a.reserve = 0
	}
	over := !now.Before(a.until) && (len(a.prepared) > 0 || len(a.blanks) > a.reserve)
	keep := a.reserve
	left, more = a.next(now)
	a.tended = more
	a.mu.Unlock()
	if over {
		p.sendAway(keep)
	}
	return left, more
}

// next says how long it is until something is due; false: nothing is. The lock is held.
func (a *ahead) next(now time.Time) (time.Duration, bool) {
	var due time.Time
	for _, at := range []time.Time{a.until, a.calm, a.reserved} {
		if at.After(now) && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	return due.Sub(now), !due.IsZero()
}

// running counts the instances.
func (p *Platform) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.instances)
}

// Bounds of what is made ahead.
const (
	mostAhead    = 16                     // blanks, and as many prepared: each has a shim and a runtime process, about 25 MB
	mostReserved = 4                      // blanks that stay after a change, no more than instances run
	calmAfter    = 200 * time.Millisecond // after the last start or removal
	prepareLimit = time.Minute            // for making one
)

// blank gives one that was born ahead, or a new one. It waits until it is there.
func (p *Platform) blank(ctx context.Context) (*blank, error) {
	for {
		b := p.ahead.take()
		old := b != nil
		if !old {
			b = p.bear()
		}
		select {
		case <-b.born:
		case <-ctx.Done():
			p.keep(b)
			return nil, ctx.Err()
		}
		if b.err == nil && !b.ended() {
			return b, nil
		}
		p.discardBlank(b)
		if !old {
			return nil, cmp.Or(b.err, shim.ErrGone)
		}
	}
}

func (p *Platform) discardBlank(b *blank) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), removeLimit)
	defer cancel()
	if err := p.dismiss(ctx, b); err != nil {
		p.cfg.Log.Warn("cannot take away a shim that is not needed", "unit", b.unit, "err", err)
	}
}

func (a *ahead) take() *blank {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.blanks) == 0 {
		return nil
	}
	b := a.blanks[0]
	a.blanks = a.blanks[1:]
	return b
}

// sendAway takes away what nobody used, all but so many blanks.
func (p *Platform) sendAway(keep int) {
	var all sync.WaitGroup
	p.ahead.mu.Lock()
	for id, pre := range p.ahead.prepared {
		delete(p.ahead.prepared, id)
		all.Go(func() { p.unprepare(pre) })
	}
	for ; len(p.ahead.blanks) > keep; p.ahead.blanks = p.ahead.blanks[1:] {
		b := p.ahead.blanks[0]
		all.Go(func() { p.discardBlank(b) })
	}
	p.ahead.mu.Unlock()
	all.Wait()
}

// closeAhead sends away what is there, for good.
func (p *Platform) closeAhead() {
	p.ahead.mu.Lock()
	p.ahead.closed = true
	p.ahead.mu.Unlock()
	p.sendAway(0)
}
