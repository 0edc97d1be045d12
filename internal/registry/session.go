package registry

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// Bounds of uploads.
const (
	maxBlob     = 16 << 30  // bytes
	maxSessions = 256       // that are open at the same time
	sessionIdle = time.Hour // after which one that nobody goes on with is given up
	keepFree    = 512 << 20 // bytes of the disk that uploads leave: the server beside needs them
	lookAtDisk  = 64 << 20  // bytes between looks at the free space
)

// sessions are the uploads under way. They end with the process: a client then begins
// anew.
type sessions struct {
	objects *object.Store
	now     func() time.Time
	mu      sync.Mutex
	open    map[string]*session
}

// session is one upload.
type session struct {
	repository string
	used       time.Time // under sessions.mu
	busy       sync.Mutex
	w          *object.Writer
}

// start begins an upload.
func (u *sessions) start(repository string) (id string, _ *session, err error) {
	u.expire()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.open) >= maxSessions {
		return "", nil, &problem{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many uploads are under way"}
	}
	if err := u.room(); err != nil {
		return "", nil, err
	}
	w, err := u.objects.NewWriter()
	if err != nil {
		return "", nil, err
	}
	id, s := newID(), &session{repository: repository, used: u.now(), w: w}
	u.open[id] = s
	return id, s, nil
}

// expire gives up the sessions that nobody used for long.
func (u *sessions) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, s := range u.open {
		if u.now().Sub(s.used) > sessionIdle && s.busy.TryLock() {
			delete(u.open, id)
			_ = s.w.Discard() // what stays goes with the process
			s.busy.Unlock()
		}
	}
}

// take gives a session to one request. Release it, or end it.
func (u *sessions) take(id, repository string) (*session, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.open[id]
	if !ok || s.repository != repository {
		return nil, &problem{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload: begin it anew"}
	}
	if !s.busy.TryLock() {
		return nil, &problem{http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request of this upload is under way"}
	}
	s.used = u.now()
	return s, nil
}

func (u *sessions) release(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.used = u.now()
	s.busy.Unlock()
}

// end removes a session with what was not taken of it.
func (u *sessions) end(id string, s *session) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, id)
	return s.w.Discard()
}

// close ends all.
func (u *sessions) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for id, s := range u.open {
		delete(u.open, id)
		errs = append(errs, s.w.Discard())
	}
	return errors.Join(errs...)
}

// room fails when the disk is nearly full.
func (u *sessions) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(u.objects.Path(), &st); err != nil {
		return fmt.Errorf("look at the free space: %w", err)
	}
	if int64(st.Bavail)*st.Bsize < keepFree {
		return &problem{http.StatusInsufficientStorage, "DENIED", "the registry's disk is nearly full"}
	}
	return nil
}

// append reads a body into a session. What arrived stays if the rest does not.
func (u *sessions) append(s *session, body io.Reader) error {
	for {
		left := maxBlob - s.w.Size()
		n, err := io.Copy(s.w, io.LimitReader(body, min(lookAtDisk, left+1)))
		switch {
		case s.w.Size() > maxBlob:
			return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a blob may have " + strconv.FormatInt(maxBlob, 10) + " bytes"}
		case errors.Is(err, io.ErrUnexpectedEOF):
			return &problem{http.StatusBadRequest, "SIZE_INVALID", "fewer bytes came than were announced"}
		case err != nil || n == 0:
			return err
		}
		if n < lookAtDisk {
			continue // at the end it reads nothing
		}
		if err := u.room(); err != nil {
			return err
		}
	}
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
