package registry

import (
	"errors"
	"io"
)

// emptyContent has a size and no bytes: it is what a HEAD request is answered with.
type emptyContent struct{ size int64 }

// Read implements io.Reader.
func (emptyContent) Read([]byte) (int, error) { return 0, errors.New("it has no bytes") }

// Seek implements io.Seeker.
func (c emptyContent) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		offset += c.size
	}
	return offset, nil
}

// watchedReader remembers why reading failed, which http.ServeContent does not tell.
type watchedReader struct {
	io.ReadSeekCloser
	failed error
}

// Read implements io.Reader.
func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.failed = err
	}
	return n, err
}
