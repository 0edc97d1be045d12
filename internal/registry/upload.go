package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

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
