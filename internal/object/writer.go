package object

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Writer takes an object whose bytes come piece by piece, as an upload's do. What it
// has goes with its process, unless [Batch.Take] made an object of it. It is not safe
// for concurrent use.
type Writer struct {
	s *Store
	f *os.File
	h hash.Hash
	n int64
}

// NewWriter starts an object. Discard it when done, also after [Batch.Take].
func (s *Store) NewWriter() (*Writer, error) {
	f, err := s.createTemp()
	if err != nil {
		return nil, err
	}
	return &Writer{s: s, f: f, h: sha256.New()}, nil
}

// Write appends bytes. After an error Size says how many were taken.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		err = storing(w.s.dir, "store an object", err)
	}
	return n, err
}

// Size is the number of bytes so far.
func (w *Writer) Size() int64 { return w.n }

// Digest is the digest of the bytes so far.
func (w *Writer) Digest() digest.Digest { return sum(w.h) }

// Reader reads the bytes so far.
func (w *Writer) Reader() (io.ReadCloser, error) { return os.Open(w.f.Name()) }

// Discard removes what was not taken.
func (w *Writer) Discard() error {
	if w.f == nil {
		return nil
	}
	err := errors.Join(w.f.Close(), os.Remove(w.f.Name()))
	w.f = nil
	return err
}

// Take adds what was written as one object, and ends the writer.
func (b *Batch) Take(w *Writer) (digest.Digest, int64, error) {
	st := staged{digest: w.Digest(), size: w.n, temp: w.f.Name()}
	if err := w.f.Close(); err != nil {
		return "", 0, b.s.drop(st.temp, err)
	}
	w.f = nil
	if stored, fresh := b.s.stored(st.digest, st.size); stored {
		temp := st.temp
		st.temp, st.fresh = "", fresh
		if err := b.s.drop(temp, nil); err != nil {
			return "", 0, err
		}
	}
	return b.add(st, nil)
}
