package object

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// objectMode is the mode of every object: read by all, written by nobody.
const objectMode = 0o444

// session is one process's directory of temporary files. Its owner holds a lock
// on it, which the kernel releases when the process dies, however it dies: a
// session that can be locked has no owner and is removed by whoever finds it.
type session struct {
	path  string
	lock  *os.File // the directory itself
	chmod bool     // the umask takes away what objects need
	next  atomic.Int64
}

// begin returns the store's session, starting it if need be.
func (s *Store) begin() (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return s.session, nil
	}
	for {
		ses, err := newSession(s.tmp())
		if err != nil {
			return nil, storing(s.dir, "make a temporary directory", err)
		}
		if ses != nil {
			s.session = ses
			return ses, nil
		}
	}
}

// newSession returns nil and no error when somebody who cleans up was faster
// than the lock: try again.
func newSession(tmp string) (*session, error) {
	path := filepath.Join(tmp, rand.Text())
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockOwnerless(path)
	if lock == nil || err != nil {
		return nil, err
	}
	ses := &session{path: path, lock: lock}
	if err := ses.tryMode(); err != nil {
		return nil, errors.Join(err, ses.close())
	}
	return ses, nil
}

// tryMode finds out whether files come with the mode that is asked for, which
// saves a call for each of them.
func (ses *session) tryMode() error {
	f, err := ses.create()
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil {
		ses.chmod = fi.Mode() != objectMode
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// create makes a new temporary file, readable by all and writable through the
// returned handle alone.
func (ses *session) create() (*os.File, error) {
	name := filepath.Join(ses.path, strconv.FormatInt(ses.next.Add(1), 36))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, objectMode)
	if err == nil && ses.chmod {
		if err := f.Chmod(objectMode); err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(name))
		}
	}
	return f, err
}

func (ses *session) close() error {
	return errors.Join(os.RemoveAll(ses.path), ses.lock.Close())
}

// lockOwnerless locks a session directory. It returns nil and no error when the
// session has an owner or is gone.
func lockOwnerless(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return nil, errors.Join(err, f.Close())
	}
	if _, err := os.Stat(path); err != nil { // removed between open and lock
		return nil, f.Close()
	}
	return f, nil
}

// removeStale removes the sessions whose process has ended.
func removeStale(tmp string) error {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(tmp, e.Name())
		lock, err := lockOwnerless(path)
		if err != nil {
			return storing(tmp, "remove stale temporary files", err)
		}
		if lock == nil {
			continue
		}
		if err := errors.Join(os.RemoveAll(path), lock.Close()); err != nil {
			return storing(tmp, "remove stale temporary files", err)
		}
	}
	return nil
}
