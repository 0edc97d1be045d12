package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A server that was killed holds the lock until the system has taken its memory
// apart; the next one, started at once, has to outlast that.
const (
	lockPatience = 2 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// Lock takes the state directory for one server; a second one gets a fault that
// names the first, after a moment in which that one may have been ending. The lock
// ends with unlock or with the process.
func Lock(ctx context.Context, dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "ashlar.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "lock the state directory: %w", err).
			Mend("make sure that %s exists and belongs to the user that runs ashlar server", dir)
	}
	if err := flock(ctx, f); err != nil {
		owner, _ := os.ReadFile(path) //nolint:errcheck // the owner's number is only for the message
		return nil, errors.Join(inUse(dir, owner, err), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the state directory: %w", err), f.Close())
	}
	return f.Close, nil
}

// flock takes the lock, or returns EWOULDBLOCK when somebody else kept it throughout.
func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

func inUse(dir string, owner []byte, err error) error {
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock the state directory %s: %w", dir, err)
	}
	var pid int
	if _, err := fmt.Sscan(string(owner), &pid); err != nil {
		pid = 0
	}
	f := fault.New(fault.Conflict, "another ashlar server uses %s: %w", dir, err).
		Mend("use that server, end it first, or choose another directory with --dir")
	if pid > 0 {
		f.Detail(fmt.Sprintf("its process is %d", pid))
	}
	return f
}
