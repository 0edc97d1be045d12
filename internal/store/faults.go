package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// explain turns what SQLite and the system say into what the user can do about
// it. It gives nil for nil and leaves faults and the context's errors as they are.
func (s *Store) explain(doing string, err error) error {
	var known *fault.Error
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return s.full(doing, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return s.unreachable(doing, err)
	}
	var native *sqlite.Error
	if !errors.As(err, &native) {
		return fmt.Errorf("%s %s: %w", doing, s.path, err)
	}
	switch native.Code() & 0xff { // the low byte is the class: https://www.sqlite.org/rescode.html
	case sqlite3.SQLITE_FULL:
		return s.full(doing, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return s.damaged(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fault.New(fault.Unavailable, "%s: %s is in use by another process: %w", doing, s.path, err).
			Mend("end that process (fuser -v %s) and try again", s.path)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return s.unreachable(doing, err)
	case sqlite3.SQLITE_IOERR:
		if noSpace(filepath.Dir(s.path)) {
			return s.full(doing, err)
		}
		return fault.New(fault.Unavailable, "%s: the disk fails to read or write %s: %w", doing, s.path, err).
			Detail("nothing was changed").Mend("see the kernel's messages (dmesg) about the disk")
	default:
		return fmt.Errorf("%s %s: %w", doing, s.path, err)
	}
}

func (s *Store) full(doing string, err error) error {
	return fault.New(fault.Unavailable, "%s: no space left for %s: %w", doing, s.path, err).
		Detail("nothing was changed").
		Mend("free space on the file system of %s (ashlar gc removes what no release needs) and try again", filepath.Dir(s.path))
}

func (s *Store) unreachable(doing string, err error) error {
	return fault.New(fault.Unavailable, "%s: %s cannot be opened for writing: %w", doing, s.path, err).
		Mend("make sure that the directory exists and belongs to the user that runs ashlar server")
}

func (s *Store) damaged(err error) error {
	return fault.New(fault.Refused, "the database %s is damaged: %w", s.path, err).
		Detail("instances and routes go on as they are; nothing can be changed until this is mended").
		Mend("stop the server, move %[1]s, %[1]s-wal and %[1]s-shm aside, put the last backup at %[1]s and start the server", s.path)
}

// noSpace says whether the file system is full: the system reports a failing sync
// or a failing map of shared memory as plain I/O errors.
func noSpace(dir string) bool {
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < 64<<10
}

// Lock takes the state directory for one server; a second one gets a fault that
// names the first. The lock ends with unlock or with the process.
func Lock(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "ashlar.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "lock the state directory: %w", err).
			Mend("make sure that %s exists and belongs to the user that runs ashlar server", dir)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(path) //nolint:errcheck // the owner's number is only for the message
		return nil, errors.Join(inUse(dir, owner, err), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the state directory: %w", err), f.Close())
	}
	return f.Close, nil
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
