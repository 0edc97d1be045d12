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
	until    time.Time
	waiting  bool // somebody waits for until
	closed   bool
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
	for len(p.ahead.blanks) < min(count, mostAhead) {
		p.ahead.blanks = append(p.ahead.blanks, p.bear())
	}
	p.keepAhead()
}

// keep puts one back that was taken for nothing.
func (p *Platform) keep(b *blank) {
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	p.ahead.blanks = append(p.ahead.blanks, b)
	if p.ahead.closed {
		p.watches.Go(p.sendAway)
		return
	}
	p.keepAhead()
}

// keepAhead lets all of it wait, from now on. The lock is held.
func (p *Platform) keepAhead() {
	p.ahead.until = time.Now().Add(p.cfg.patience)
	if !p.ahead.waiting {
		p.ahead.waiting = true
		p.watches.Go(p.sendAwayLater)
	}
}

// sendAwayLater waits until nothing is expected any more.
func (p *Platform) sendAwayLater() {
	for {
		p.ahead.mu.Lock()
		left := time.Until(p.ahead.until)
		p.ahead.waiting = left > 0
		p.ahead.mu.Unlock()
		if left <= 0 {
			p.sendAway()
			return
		}
		select {
		case <-time.After(left):
		case <-p.ctx.Done():
			return
		}
	}
}

// Bounds of what is made ahead.
const (
	mostAhead    = 16          // blanks, and as many prepared: each has a shim and a runtime process, about 25 MB
	prepareLimit = time.Minute // for making one
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

// sendAway takes away what nobody used.
func (p *Platform) sendAway() {
	var all sync.WaitGroup
	p.ahead.mu.Lock()
	for id, pre := range p.ahead.prepared {
		delete(p.ahead.prepared, id)
		all.Go(func() { p.unprepare(pre) })
	}
	p.ahead.mu.Unlock()
	for b := p.ahead.take(); b != nil; b = p.ahead.take() {
		all.Go(func() { p.discardBlank(b) })
	}
	all.Wait()
}

// closeAhead sends away what is there, for good.
func (p *Platform) closeAhead() {
	p.ahead.mu.Lock()
	p.ahead.closed = true
	p.ahead.mu.Unlock()
	p.sendAway()
}
