package object

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that somebody else holds is tried again. flock
// has no way to wait that a context could end.
const lockPoll = 20 * time.Millisecond

// Share keeps garbage collection away until unlock is called. Hold it from the
// first object that something new needs until the thing that refers to it is
// recorded. It waits for a collection that runs.
func (s *Store) Share(ctx context.Context) (unlock func(), err error) {
	return s.flock(ctx, unix.LOCK_SH)
}

// Exclusive keeps everybody away who uses Share, and waits for those that do.
// Only its holder may remove objects.
func (s *Store) Exclusive(ctx context.Context) (unlock func(), err error) {
	return s.flock(ctx, unix.LOCK_EX)
}

func (s *Store) flock(ctx context.Context, how int) (func(), error) {
	path := filepath.Join(s.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, storing(s.dir, "lock the object store", err)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return sync.OnceFunc(func() { _ = f.Close() }), nil // closing cannot fail to unlock
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the object store: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lock of the object store: %w", ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}
