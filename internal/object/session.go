package object

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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
	lock  *os.File    // the directory itself
	chmod func() bool // the umask takes away what objects need
	next  atomic.Int64
}

// begin returns the store's session, starting it if need be.
func (s *Store) begin() (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return s.session, nil
	}
	if err := s.syncDirs(); err != nil {
		return nil, storing(s.dir, "make the object store", err)
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
	return &session{path: path, lock: lock, chmod: sync.OnceValue(umaskMatters)}, nil
}

// umaskMatters says whether files come without the mode that is asked for. There
// is no call that only reads the umask.
func umaskMatters() bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), "\nUmask:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 8, 32)
	return err != nil || mask&objectMode != 0
}

// create makes a new temporary file, readable by all and writable through the
// returned handle alone.
func (ses *session) create() (*os.File, error) {
	fd, name, err := ses.open()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// write makes a new temporary file that holds b, and gives its name. After an
// error it is gone.
func (ses *session) write(b []byte) (name string, err error) {
	fd, name, err := ses.open()
	if err != nil {
		return "", err
	}
	for len(b) > 0 && err == nil {
		var n int
		if n, err = ignoringEINTR(func() (int, error) { return unix.Write(fd, b) }); err == nil {
			b = b[n:]
		}
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return "", errors.Join(&fs.PathError{Op: "write", Path: name, Err: err}, os.Remove(name))
	}
	return name, nil
}

// open makes a temporary file. It goes around os.OpenFile, which makes twice as
// many calls: sealing does this for every file.
func (ses *session) open() (fd int, path string, err error) {
	name := strconv.FormatInt(ses.next.Add(1), 36)
	path = ses.path + "/" + name
	fd, err = ignoringEINTR(func() (int, error) {
		return unix.Openat(int(ses.lock.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, objectMode)
	})
	if err != nil {
		return 0, "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if ses.chmod() {
		if err := unix.Fchmod(fd, objectMode); err != nil {
			return 0, "", errors.Join(&fs.PathError{Op: "chmod", Path: path, Err: err}, unix.Close(fd), os.Remove(path))
		}
	}
	return fd, path, nil
}

// ignoringEINTR calls again what a signal interrupted.
func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
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
