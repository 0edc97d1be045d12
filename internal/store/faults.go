package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
