package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
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

// startUpload begins an upload, takes a whole blob, or takes one over from another
// repository.
func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, v view, _ string) error {
	q := r.URL.Query()
	if a := q.Get("digest-algorithm"); a != "" && a != "sha256" && a != "sha512" {
		return &problem{http.StatusBadRequest, "UNSUPPORTED", "known are sha256 and sha512"}
	}
	if q.Has("mount") {
		done, err := s.mount(r.Context(), w, v, q.Get("mount"), q.Get("from"))
		if err != nil || done {
			return err
		}
	}
	var want digest.Digest
	if q.Has("digest") {
		var ok bool
		if want, ok = parseDigest(q.Get("digest")); !ok {
			return &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
		}
	}
	if err := checkLength(r); err != nil {
		return err
	}
	id, session, err := s.uploads.start(v.pushed.name)
	if err != nil {
		return err
	}
	if want == "" {
		tellUpload(w, v, id, session)
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	session.busy.Lock()
	if err := s.uploads.append(session, r.Body); err != nil {
		return errors.Join(err, s.uploads.end(id, session))
	}
	return s.finish(w, r, v, id, session, want)
}

// mount takes a blob over that another repository has; false when it has not.
func (s *Server) mount(ctx context.Context, w http.ResponseWriter, v view, mount, from string) (bool, error) {
	d, ok := parseDigest(mount)
	if !ok {
		return false, &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
	}
	names := []string{from}
	if from == "" {
		var err error
		if names, err = repositories(s.objects); err != nil {
			return false, err
		}
	} else if !validName(from) {
		return false, &problem{http.StatusBadRequest, "NAME_INVALID", "from is not the name of a repository"}
	}
	for _, name := range names {
		obj, ok, err := openRepository(s.objects, name).lookup(kindBlobs, d)
		if err != nil {
			return false, err
		}
		if !ok || !s.objects.Has(obj) {
			continue // what Ashlar built is not stored, so the client sends it
		}
		batch := s.objects.NewBatch()
		defer batch.Discard()
		return true, s.commitBlob(ctx, w, batch, v, d, obj)
	}
	return false, nil
}

// commitBlob makes a blob durable, with the reference that puts it into a repository.
func (s *Server) commitBlob(ctx context.Context, w http.ResponseWriter, batch *object.Batch, v view, d, obj digest.Digest) error {
	unlock, err := s.objects.Share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := v.pushed.stageName(batch); err != nil {
		return err
	}
	if err := batch.SetRef(kindBlobs+v.pushed.id, refName(d), obj); err != nil {
		return err
	}
	if err := batch.Commit(); err != nil {
		return err
	}
	if !s.objects.Has(obj) { // garbage was collected between looking and locking
		_, err := v.pushed.removeBlob(d)
		return errors.Join(&problem{http.StatusConflict, "BLOB_UNKNOWN", "the blob went away meanwhile"}, err)
	}
	w.Header().Set("Location", "/v2/"+v.pushed.name+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// finish makes a blob of an upload if it is what it says, and ends it in any case.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, v view, id string, u *session, want digest.Digest) error {
	err := func() error {
		if err := is(u.w, want); err != nil {
			return err
		}
		batch := s.objects.NewBatch()
		defer batch.Discard()
		obj, _, err := batch.Take(u.w)
		if err != nil {
			return err
		}
		return s.commitBlob(r.Context(), w, batch, v, want, obj)
	}()
	return errors.Join(err, s.uploads.end(id, u))
}

// is fails when what was written is not what a digest says.
func is(w *object.Writer, want digest.Digest) error {
	got := w.Digest()
	if want.Algorithm() != got.Algorithm() {
		f, err := w.Reader()
		if err != nil {
			return err
		}
		got, err = want.Algorithm().FromReader(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if got != want {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "the content is not what its digest says"}
	}
	return nil
}

// checkLength refuses early what says itself that it is too large.
func checkLength(r *http.Request) error {
	if r.ContentLength > maxBlob {
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a blob may have " + strconv.FormatInt(maxBlob, 10) + " bytes"}
	}
	return nil
}

// tellUpload says where an upload goes on.
func tellUpload(w http.ResponseWriter, v view, id string, u *session) {
	w.Header().Set("Location", "/v2/"+v.pushed.name+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-Uuid", id)
	w.Header().Set("Range", "0-"+strconv.FormatInt(max(0, u.w.Size()-1), 10))
}

func (s *Server) uploadState(w http.ResponseWriter, _ *http.Request, v view, id string) error {
	u, err := s.uploads.take(id, v.pushed.name)
	if err != nil {
		return err
	}
	defer s.uploads.release(u)
	tellUpload(w, v, id, u)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) cancelUpload(w http.ResponseWriter, _ *http.Request, v view, id string) error {
	u, err := s.uploads.take(id, v.pushed.name)
	if err != nil {
		return err
	}
	if err := s.uploads.end(id, u); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) patchUpload(w http.ResponseWriter, r *http.Request, v view, id string) error {
	u, err := s.uploads.take(id, v.pushed.name)
	if err != nil {
		return err
	}
	if err := s.receive(r, u); err != nil {
		return s.dropIfLarge(id, u, err)
	}
	defer s.uploads.release(u)
	tellUpload(w, v, id, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *Server) putUpload(w http.ResponseWriter, r *http.Request, v view, id string) error {
	want, ok := parseDigest(r.URL.Query().Get("digest"))
	if !ok {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "digest has to be the SHA-256 or SHA-512 digest of the whole blob"}
	}
	u, err := s.uploads.take(id, v.pushed.name)
	if err != nil {
		return err
	}
	if err := s.receive(r, u); err != nil {
		return s.dropIfLarge(id, u, err)
	}
	return s.finish(w, r, v, id, u, want)
}

// dropIfLarge releases a session after an error, or ends it if it can only get worse.
func (s *Server) dropIfLarge(id string, u *session, err error) error {
	if u.w.Size() > maxBlob {
		return errors.Join(err, s.uploads.end(id, u))
	}
	s.uploads.release(u)
	return err
}

// receive appends a request's body, which has to begin where the bytes before end if
// it says where it begins.
func (s *Server) receive(r *http.Request, u *session) error {
	if err := checkLength(r); err != nil {
		return err
	}
	if text := r.Header.Get("Content-Range"); text != "" {
		first, last, err := parseContentRange(text)
		if err != nil {
			return err
		}
		if r.ContentLength >= 0 && r.ContentLength != last-first+1 {
			return &problem{http.StatusBadRequest, "SIZE_INVALID", "Content-Range and Content-Length differ"}
		}
		if first != u.w.Size() {
			return &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "this chunk does not begin where the one before ended"}
		}
		return s.uploads.append(u, io.LimitReader(r.Body, last-first+1))
	}
	return s.uploads.append(u, r.Body)
}

// parseContentRange reads "FIRST-LAST", both included. HTTP's own form has a unit
// and a length besides; the specification has not.
func parseContentRange(s string) (first, last int64, err error) {
	a, b, ok := strings.Cut(s, "-")
	if ok {
		first, err = parseOffset(a)
	}
	if ok && err == nil {
		last, err = parseOffset(b)
	}
	if !ok || err != nil || last < first {
		return 0, 0, &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Content-Range has to be  FIRST-LAST"}
	}
	return first, last, nil
}

func parseOffset(s string) (int64, error) {
	if s == "" || len(s) > 15 || strings.Trim(s, "0123456789") != "" {
		return 0, fs.ErrInvalid
	}
	return strconv.ParseInt(s, 10, 64)
}
