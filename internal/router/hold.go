package router

import (
	"context"
	"time"
)

// Backends that are in the table but could not be reached are tried again while a
// request is held, first after knockFirst, then twice as long each time.
const (
	knockFirst = 10 * time.Millisecond
	knockMost  = 160 * time.Millisecond
)

// hold lets the request wait until a backend takes it, at most for the service's
// Hold counted from the first wait. A new snapshot wakes it at once.
func (x *exchange) hold(ctx context.Context) error {
	none := errHeldOut
	if len(x.tried) > 0 {
		none = errUnreached
	}
	if x.svc.hold == 0 {
		return none
	}
	defer x.router.held.Add(-1)
	if x.router.held.Add(1) > x.router.maxHeld {
		return errTooMany
	}
	if x.until.IsZero() {
		x.until, x.knock = time.Now().Add(x.svc.hold), knockFirst
		x.svc.counters.held.Add(1)
	}
	over := time.NewTimer(time.Until(x.until))
	defer over.Stop()
	for x.backend == nil {
		select {
		case <-over.C:
			return none
		case <-x.router.closing:
			return none
		case <-ctx.Done():
			return ctx.Err()
		case <-x.snap.replaced:
		case <-x.nextKnock():
		}
		if err := x.look(); err != nil {
			return err
		}
		clear(x.tried)
		x.tried = x.tried[:0]
		x.take() // a stale snapshot was replaced: the next round begins at once
	}
	return nil
}

// nextKnock signals when backends that could not be reached are worth another
// try. If there are none, only a new snapshot can help.
func (x *exchange) nextKnock() <-chan time.Time {
	if len(x.svc.groups) == 0 {
		return nil
	}
	wait := x.knock
	x.knock = min(2*wait, knockMost)
	return time.After(wait)
}
