package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Timing of the loop.
const (
	lookAgain  = 5 * time.Second        // an environment is looked at this often, whatever was signalled
	lookAtRest = 30 * time.Second       // one in which nothing is left to do
	sweepPause = time.Second            // between looks at all of those, when instances of others change
	afterError = 250 * time.Millisecond // pause after a failed Tick; doubles
	mostPause  = 5 * time.Second        //

	rehearseAgain = time.Second     // when the environment was busy
	rehearseEvery = 5 * time.Minute // that a rollback would work is tried out this often, and whenever something of it changed
)

// Wake has an environment looked at soon. It never blocks.
func (e *Engine) Wake(key Key) {
	select {
	case e.wake <- key:
	default: // the loop is behind and looks at everything by itself
	}
}

// Run ticks every environment until ctx ends: at once after a change that a
// platform or a request signals, and when a decision said so. Each environment
// has a goroutine of its own, so that a slow one delays no other.
func (e *Engine) Run(ctx context.Context, now func() time.Time) error {
	keys, err := e.Store.Environments(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := map[Key]chan struct{}{}
	follow := func(key Key) {
		if signals[key] == nil {
			signalled := make(chan struct{}, 1) // the map is this goroutine's alone
			signals[key] = signalled
			wg.Go(func() { e.follow(ctx, now, key, signalled) })
		}
	}
	signal := func(key Key) {
		select {
		case signals[key] <- struct{}{}:
		default:
		}
	}
	for _, key := range keys {
		follow(key)
	}
	changes := e.changes(ctx, &wg)
	rehearsal := time.NewTicker(rehearseEvery)
	defer rehearsal.Stop()
	wg.Go(func() { e.rehearsals(ctx, now) })
	sweep := time.NewTimer(sweepPause)
	sweep.Stop()
	defer sweep.Stop()
	cooling, again := false, false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case key := <-e.wake:
			follow(key)
			signal(key)
		case <-changes:
			e.sweep(signals, signal, cooling)
			if again = cooling; !cooling {
				cooling = true
				sweep.Reset(sweepPause)
			}
		case <-sweep.C:
			if cooling = again; again {
				again = false
				e.sweep(signals, signal, false)
				sweep.Reset(sweepPause)
			}
		case <-rehearsal.C:
			for key := range signals {
				e.rehearseSoon(key)
			}
		}
	}
}

// sweep signals the environments after a change of some instance: at once those in
// which something is being done, and the others unless they were signalled a moment
// ago, so that one deploy does not have a thousand others looked at again and again.
func (e *Engine) sweep(signals map[Key]chan struct{}, signal func(Key), busyOnly bool) {
	for key := range signals {
		m := e.memory(key)
		if !busyOnly || !m.atRest.Load() {
			signal(key)
		}
	}
}

// changes merges the signals of all platforms.
func (e *Engine) changes(ctx context.Context, wg *sync.WaitGroup) <-chan struct{} {
	merged := make(chan struct{}, 1)
	for _, name := range slices.Sorted(maps.Keys(e.Platforms)) {
		from := e.Platforms[name].Changes()
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-from:
					select {
					case merged <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	return merged
}

// rehearseSoon has it tried out soon whether a rollback would work. It never blocks.
func (e *Engine) rehearseSoon(key Key) {
	e.mu.Lock()
	e.due[key] = true
	e.mu.Unlock()
	select {
	case e.rehearse <- struct{}{}:
	default: // it is on its way already
	}
}

// rehearsals tries out rollbacks, one after the other, beside everything else.
func (e *Engine) rehearsals(ctx context.Context, now func() time.Time) {
	again := time.NewTimer(rehearseAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.rehearse:
		case <-again.C:
		}
		e.mu.Lock()
		due := e.due
		e.due = map[Key]bool{}
		e.mu.Unlock()
		for key := range due {
			_, kept, err := e.tryOut(ctx, now(), key)
			if err == nil && kept {
				err = e.stand(ctx, now(), key)
			}
			if err != nil && ctx.Err() == nil {
				e.Log.Warn("whether a rollback would work could not be found out", "env", key.String(), "err", err)
			}
			if !kept && err == nil {
				e.mu.Lock()
				e.due[key] = true
				e.mu.Unlock()
				again.Reset(rehearseAgain)
			}
		}
	}
}

// follow ticks one environment.
func (e *Engine) follow(ctx context.Context, now func() time.Time, key Key, signal <-chan struct{}) {
	pause := afterError
	e.rehearseSoon(key)
	for ctx.Err() == nil {
		at := now()
		ticked, err := e.Tick(ctx, at, key)
		e.note(key, err)
		wait := lookAgain
		e.memory(key).atRest.Store(err == nil && ticked.AtRest)
		if ticked.AtRest {
			wait = lookAtRest
		}
		switch {
		case err != nil && ctx.Err() == nil:
			e.Log.Warn("step failed, looking again", "env", key.String(), "err", err, "pause", pause)
			wait, pause = pause, min(2*pause, mostPause)
		case ticked.Busy:
			wait, pause = 0, afterError
			if ticked.Turned {
				e.rehearseSoon(key)
			}
		case !ticked.Wake.IsZero():
			wait, pause = max(min(ticked.Wake.Sub(at), lookAgain), time.Millisecond), afterError
		default:
			pause = afterError
		}
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-signal:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// note remembers what kept the last step from being taken, for Status: when even
// the record cannot be written, nothing else would say why nothing moves.
func (e *Engine) note(key Key, err error) {
	m := e.memory(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	m.trouble = ""
	if err != nil {
		m.trouble = err.Error()
	}
}

func (e *Engine) trouble(key Key) string {
	m := e.memory(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	return m.trouble
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
