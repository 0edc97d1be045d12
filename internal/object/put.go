package object

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// smallObject is the size below which content is held in memory and hashed before
// it touches the disk, so that what is already stored is not written again.
const smallObject = 256 << 10

// staged is content that was hashed and, unless it is stored already, written to
// a temporary file.
type staged struct {
	digest digest.Digest
	size   int64
	temp   string // temporary file; empty when the object is stored already
	fresh  bool   // stored already, but so recently that its name may not be durable yet
}

// Put stores what r yields, at most limit bytes (a negative limit: any number),
// and returns once it is durable.
func (s *Store) Put(r io.Reader, limit int64) (digest.Digest, int64, error) {
	b := s.NewBatch()
	defer b.Discard()
	d, n, err := b.Put(r, limit)
	if err != nil {
		return "", 0, err
	}
	return d, n, b.Commit()
}

// PutBytes stores b and returns once it is durable.
func (s *Store) PutBytes(b []byte) (digest.Digest, error) {
	d, _, err := s.Put(bytes.NewReader(b), int64(len(b)))
	return d, err
}

// PutVerified stores what r yields if it is what want says. Other bytes are
// Refused and leave nothing.
func (s *Store) PutVerified(r io.Reader, want digest.Digest, limit int64) (int64, error) {
	b := s.NewBatch()
	defer b.Discard()
	n, err := b.PutVerified(r, want, limit)
	if err != nil {
		return 0, err
	}
	return n, b.Commit()
}

// stage reads r to its end. want may be empty.
func (s *Store) stage(r io.Reader, want digest.Digest, limit int64) (staged, error) {
	if want != "" {
		if _, err := Rel(want); err != nil {
			return staged{}, err
		}
	}
	r = limited(r, limit)
	buf := s.buffers.Get().(*[smallObject]byte)
	defer s.buffers.Put(buf)
	n, err := io.ReadFull(r, buf[:])
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return s.stageSmall(buf[:n], want)
	case err != nil:
		return staged{}, reading(err)
	default:
		return s.stageLarge(io.MultiReader(bytes.NewReader(buf[:]), r), want)
	}
}

func (s *Store) stageSmall(b []byte, want digest.Digest) (staged, error) {
	st := staged{digest: digest.FromBytes(b), size: int64(len(b))}
	if want != "" && st.digest != want {
		return staged{}, differs(want, st.digest)
	}
	if stored, fresh := s.stored(st.digest, st.size); stored {
		st.fresh = fresh
		return st, nil
	}
	ses, err := s.begin()
	if err != nil {
		return staged{}, err
	}
	if st.temp, err = ses.write(b); err != nil {
		return staged{}, storing(s.dir, "store an object", err)
	}
	return st, nil
}

func (s *Store) stageLarge(r io.Reader, want digest.Digest) (staged, error) {
	h := sha256.New()
	if want != "" {
		if stored, fresh := s.stored(want, -1); stored { // hash only
			n, err := io.Copy(h, r)
			if err != nil {
				return staged{}, reading(err)
			}
			if got := sum(h); got != want {
				return staged{}, differs(want, got)
			}
			return staged{digest: want, size: n, fresh: fresh}, nil
		}
	}
	f, err := s.createTemp()
	if err != nil {
		return staged{}, err
	}
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return staged{}, s.drop(f.Name(), err)
	}
	st := staged{digest: sum(h), size: n, temp: f.Name()}
	if want != "" && st.digest != want {
		return staged{}, s.drop(f.Name(), differs(want, st.digest))
	}
	if stored, fresh := s.stored(st.digest, st.size); stored {
		st.temp, st.fresh = "", fresh
		return st, s.drop(f.Name(), nil)
	}
	return st, nil
}

func (s *Store) createTemp() (*os.File, error) {
	ses, err := s.begin()
	if err != nil {
		return nil, err
	}
	f, err := ses.create()
	if err != nil {
		return nil, storing(s.dir, "store an object", err)
	}
	return f, nil
}

// drop removes a temporary file after err, which it returns as a fault.
func (s *Store) drop(temp string, err error) error {
	rmErr := os.Remove(temp)
	if err == nil && rmErr == nil {
		return nil
	}
	if r := (*readError)(nil); errors.As(err, &r) {
		return reading(r)
	}
	return storing(s.dir, "store an object", errors.Join(err, rmErr))
}

// limited makes reading more than limit bytes an error, and marks the errors of
// the source apart from those of the disk.
func limited(r io.Reader, limit int64) io.Reader {
	return &limitReader{r: r, left: limit, limit: limit}
}

type limitReader struct {
	r           io.Reader
	left, limit int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.limit >= 0 && int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if l.limit >= 0 {
		if l.left -= int64(n); l.left < 0 {
			return 0, &readError{tooLarge(l.limit)}
		}
	}
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// readError is a failure of the source of an object, not of the store.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func reading(err error) error {
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return f
	}
	return fmt.Errorf("read the content of an object: %w", err)
}
