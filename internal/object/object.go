// Package object is the content-addressed store under a state directory: every
// byte that Ashlar keeps for ever (file contents, sealed trees, manifests,
// packages, indexes) is one file named by its SHA-256,
//
//	D/objects/ab/cdef…   mode 0444, never changed
//	D/objects/tmp/…      what is being written, one directory per process
//	D/refs/<kind>/<name> small files that hold a digest
//	D/lock               flock: shared by who adds, exclusive by who collects garbage
//
// D/objects is also the data layer of every mounted sealed tree (package seal),
// which is why objects are plain files and never compressed.
//
// The store keeps one promise whatever happens, a crash or a full disk included:
// a file under its final name has all the bytes its name says, and once Put or
// Batch.Commit returned nil they survive the machine losing power.
// TestKilledInTheMiddle and TestDiskFull prove it.
//
// Start at [Open] and [Store.Put]; use [Store.NewBatch] for more than a few objects.
package object

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Store is an object store on one file system. It is safe for concurrent use,
// by several processes too.
type Store struct {
	dir  string   // D
	root *os.File // D/objects, so that looking for an object does not walk the whole path

	buffers sync.Pool // of *[smallObject]byte

	mu      sync.Mutex
	session *session // where temporary files go; nil until the first write
}

// Open opens the store under the state directory dir, making what is missing,
// and removes temporary files that a killed process left behind.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	s := &Store{dir: dir, buffers: sync.Pool{New: func() any { return new([smallObject]byte) }}}
	for _, d := range []string{s.tmp(), s.refs()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, storing(dir, "make the object store", err)
		}
	}
	spread(s.tmp())
	if s.root, err = os.Open(s.Path()); err != nil {
		return nil, storing(dir, "open the object store", err)
	}
	if err := removeStale(s.tmp()); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the use of the store and removes its temporary directory. A store that
// is not closed loses both when its process ends.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.root.Close()
	if s.session != nil {
		err = errors.Join(err, s.session.close())
		s.session = nil
	}
	return err
}

// Path is the directory that holds the objects: the data layer of an overlay mount.
func (s *Store) Path() string { return filepath.Join(s.dir, "objects") }

func (s *Store) tmp() string  { return filepath.Join(s.dir, "objects", "tmp") }
func (s *Store) refs() string { return filepath.Join(s.dir, "refs") }

// File is the path of an object, whether it is stored or not.
func (s *Store) File(d digest.Digest) (string, error) {
	rel, err := Rel(d)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.Path(), rel), nil
}

// Rel is an object's path relative to [Store.Path]: "ab/cdef…".
func Rel(d digest.Digest) (string, error) {
	hex, ok := image.Hex(d)
	if !ok {
		return "", fault.New(fault.Invalid, "%q is not the digest of an object", d).Mend(`write  sha256:  and 64 hexadecimal digits`)
	}
	return hex[:2] + "/" + hex[2:], nil
}

// Open gives the bytes of an object as they are on disk; use [Store.ReadAll] or
// [Store.Verify] where they must be checked. It implements image.Opener.
func (s *Store) Open(d digest.Digest) (io.ReadCloser, error) {
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (s *Store) open(d digest.Digest) (*os.File, error) {
	path, err := s.File(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "object %s is not stored: %w", d, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", d, err)
	}
	return f, nil
}

// ReadAll reads an object of at most limit bytes and checks its digest.
func (s *Store) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	return readAll(f, d, limit)
}

// readAll reads and closes the file of an object.
func readAll(f *os.File, d digest.Digest, limit int64) ([]byte, error) {
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", d, err)
	}
	if int64(len(b)) > limit {
		return nil, tooLarge(limit).At(f.Name())
	}
	if got := digest.FromBytes(b); got != d {
		return nil, damaged(f.Name(), d, got)
	}
	return b, nil
}

// Verify reads an object and compares its bytes with its name. The fault is
// Refused when they differ and NotFound when there is no such object; its Where
// is the file's path.
func (s *Store) Verify(d digest.Digest) error {
	_, err := s.CheckContext(context.Background(), d)
	return err
}

// CheckContext is Verify that gives up when ctx ends and also returns the
// object's size.
func (s *Store) CheckContext(ctx context.Context, d digest.Digest) (size int64, err error) {
	f, err := s.open(d)
	if err != nil {
		if path, perr := s.File(d); perr == nil {
			return 0, fault.Of(err).At(path)
		}
		return 0, err
	}
	defer f.Close()
	h := sha256.New()
	buf := s.buffers.Get().(*[smallObject]byte)
	defer s.buffers.Put(buf)
	size, err = io.CopyBuffer(h, contextReader{ctx, f}, buf[:])
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fault.New(fault.Refused, "object %s cannot be read: %w", d, err).At(f.Name())
	}
	if got := sum(h); got != d {
		return 0, damaged(f.Name(), d, got)
	}
	return size, nil
}

// Remove deletes an object. Removing what is not stored is not an error. Only
// the holder of [Store.Exclusive] may call it.
func (s *Store) Remove(d digest.Digest) error {
	path, err := s.File(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove object %s: %w", d, err)
	}
	return nil
}

// Walk calls fn for every stored object in order of digest. What is not named
// like an object is passed over. An error of fn ends the walk and is returned.
func (s *Store) Walk(fn func(d digest.Digest, size int64) error) error {
	for i := range fanOut {
		prefix := fmt.Sprintf("%02x", i)
		entries, err := os.ReadDir(filepath.Join(s.Path(), prefix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list objects: %w", err)
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.SHA256, prefix+e.Name())
			if _, ok := image.Hex(d); !ok {
				continue
			}
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list objects: %w", err)
			}
			if err := fn(d, fi.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// contextReader fails once its context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
