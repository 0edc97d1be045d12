package store

import (
	"bytes"
	"compress/flate"
	"context"
	"io"
	"sync"
)

// change runs one transaction: everything in it happens, or nothing.
func (s *Store) change(ctx context.Context, doing string, do func(tx transaction) error) error {
	tx, err := s.writer.begin(ctx, nil)
	if err != nil {
		return s.explain(doing, err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // its error says nothing that err does not: nothing was committed
		return s.explain(doing, err)
	}
	if err := tx.Commit(); err != nil {
		_ = tx.Rollback()
		return s.explain(doing, err)
	}
	s.signal.broadcast()
	return nil
}

// Appended gives a channel that is closed by the next change. Who follows the
// record takes the channel first, then reads Entries, then waits: nothing is
// missed.
func (s *Store) Appended() <-chan struct{} { return s.signal.next() }

// signal wakes everybody who waits, once each.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// maxUnpacked bounds what a packed value may become, in bytes.
const maxUnpacked = 64 << 20

// packers are flate.Writers to use again: a new one takes a megabyte.
var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is one that there is
	}
	return w
}}

// pack compresses JSON: states repeat their digests, and fewer bytes are fewer
// pages to write.
func pack(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&b)
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func unpack(packed []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxUnpacked))
}
