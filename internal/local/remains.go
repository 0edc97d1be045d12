package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/shim"
)

// removeLimit is the longest that taking an instance away may last.
const removeLimit = 30 * time.Second

// goneDir marks a directory whose instance is gone; New sweeps what a crash left of it.
const goneDir = ".gone-"

// purge takes away everything of the instance, whatever state it is in. It can be
// repeated after an error.
func (p *Platform) purge(ctx context.Context, i *instance) error {
	i.unprobe()
	if c := i.client(); c != nil {
		patient, cancel := context.WithTimeout(ctx, p.cfg.shimLimit)
		_, err := c.Order(patient, shim.OpKill)
		cancel()
		if err != nil && !errors.Is(err, shim.ErrGone) {
			p.cfg.Log.Warn("shim does not obey", "instance", i.meta.Instance.ID, "err", err)
		}
	}
	return p.sweep(ctx, i.meta)
}

// sweep waits until the shim has gone, then removes what is left.
func (p *Platform) sweep(ctx context.Context, m meta) error {
	id := m.Instance.ID
	dir := p.instanceDir(id)
	if err := p.awaitShim(ctx, dir); err != nil {
		return err
	}
	err := errors.Join(p.deleteContainer(ctx, m), deleteLink(m.Link), p.retireLogs(m))
	if err != nil {
		return err
	}
	gone := filepath.Join(p.instancesDir(), goneDir+id)
	if err := os.Rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// awaitShim returns when no shim of the directory lives; it kills one that takes too long.
func (p *Platform) awaitShim(ctx context.Context, dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, shim.LockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	patient, cancel := context.WithTimeout(ctx, p.cfg.shimLimit)
	defer cancel()
	if err := flock(patient, lock); err == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Locked, so the process that wrote its ID there lives: the ID cannot be a stranger's.
	b, err := os.ReadFile(lock.Name())
	if err != nil {
		return err
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return fmt.Errorf("kill the shim that does not end: %w", err)
		}
	}
	return flock(ctx, lock)
}

// flock locks f, waiting for who has it. The kernel knows no deadline for that, so
// it asks again and again.
func flock(ctx context.Context, f *os.File) error {
	for wait := time.Millisecond; ; wait = min(wait*2, 20*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// deleteContainer removes a container that has no shim any more, with all its
// processes. Nothing is asked of the runtime: what it would remove is its own
// directory and the control groups.
func (p *Platform) deleteContainer(ctx context.Context, m meta) error {
	var errs []error
	for _, group := range []string{p.cgroup(m.Instance.ID), p.twinCgroup(m.Instance.ID)} {
		path := strings.TrimPrefix(group, "/")
		if err := killCgroup(ctx, path); err != nil {
			return err
		}
		errs = append(errs, removeCgroups(path))
	}
	if m.Unit != "" {
		for _, unit := range []string{m.Unit, shim.TwinUnit(m.Unit)} {
			errs = append(errs, os.RemoveAll(filepath.Join(p.runcRoot(), unit)))
		}
	}
	return errors.Join(errs...)
}

// clearLost ends what an instance whose shim was killed still runs: nobody holds
// its output or would see its end.
func (p *Platform) clearLost(i *instance) {
	i.removal.Lock()
	defer i.removal.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), removeLimit)
	defer cancel()
	err := p.awaitShim(ctx, i.dir())
	if err == nil {
		err = p.deleteContainer(ctx, i.meta)
	}
	if err != nil {
		p.cfg.Log.Warn("cannot end what a lost instance left", "instance", i.meta.Instance.ID, "err", err)
	}
}

// cgroupDirs finds the control group's directory in every hierarchy, v1 and v2.
func cgroupDirs(path string) ([]string, error) {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, err := filepath.Glob(filepath.Join(pattern, path))
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// killCgroup kills every process of the control group and waits for their end.
func killCgroup(ctx context.Context, path string) error {
	dirs, err := cgroupDirs(path)
	if err != nil {
		return err
	}
	for {
		left := 0
		for _, dir := range dirs {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				continue // gone, or a hierarchy in which it cannot have processes
			}
			for _, field := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					left++
					_ = unix.Kill(pid, unix.SIGKILL) // ESRCH: it has just ended
				}
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of %s do not end: %w", left, path, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// removeCgroups removes the empty control group at path in every hierarchy, and
// its parent if that is empty too.
func removeCgroups(path string) error {
	dirs, err := cgroupDirs(path)
	for _, dir := range dirs {
		err = errors.Join(err, removeCgroup(dir))
		if parent := filepath.Dir(dir); filepath.Base(parent) == "ashlar" {
			_ = unix.Rmdir(parent) // another server may use it
		}
	}
	return err
}

// removeCgroup waits a moment for processes that are just ending.
func removeCgroup(dir string) error {
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || try == 100 {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}
