package build

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// fileLimit is the largest file that an artifact may hold, in bytes.
const fileLimit = 8 << 30

// smallFile is what is read into memory at once.
const smallFile = 1 << 20

// content gives digests of files, from a cache where they are unchanged, and
// brings their bytes into the object store. Below a directory it never follows a
// link out of it.
type content struct {
	dir   string   // absolute
	root  *os.Root // of dir
	cache *statCache
}

func openContent(dir string, cache *statCache) (*content, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the directory %s cannot be read: %w", dir, err)
	}
	return &content{dir: dir, root: root, cache: cache}, nil
}

func (c *content) Close() error { return c.root.Close() }

// put gives the SHA-256 and the size of a regular file below the directory, whose
// bytes are an object once the batch is committed. info is what Lstat says of it.
func (c *content) put(name string, info fs.FileInfo, objects *object.Store, batch *object.Batch) (digest.Digest, int64, error) {
	r := reading{name: name, key: filepath.Join(c.dir, name), cache: c.cache,
		stat: func() (fs.FileInfo, error) { return info, nil },
		open: func() (*os.File, error) { return c.root.Open(name) },
	}
	return r.do(objects.Has, func(d digest.Digest, size int64, small []byte, f io.ReadSeeker) error {
		var from io.Reader = bytes.NewReader(small)
		if small == nil {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			from = f
		}
		_, err := batch.PutVerified(from, d, size)
		return err
	})
}

// fileDigest gives the SHA-256 of any regular file, following links.
func fileDigest(path string, cache *statCache) (digest.Digest, error) {
	r := reading{name: path, key: path, cache: cache,
		stat: func() (fs.FileInfo, error) { return os.Stat(path) },
		open: func() (*os.File, error) { return os.Open(path) },
	}
	d, _, err := r.do(nil, nil)
	return d, err
}

// reading is how one file is read.
type reading struct {
	name  string // for errors
	key   string // for the cache: its absolute path
	cache *statCache
	stat  func() (fs.FileInfo, error)
	open  func() (*os.File, error)
}

// do reads the file unless the cache knows it and has, which may be nil, still
// has its bytes. keep, which may be nil, gets what was read; small is nil for a large file.
func (r reading) do(has func(digest.Digest) bool,
	keep func(d digest.Digest, size int64, small []byte, f io.ReadSeeker) error) (digest.Digest, int64, error) {
	info, err := r.stat()
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s: %w", r.name, errNotRegular)
	}
	before := stat(info)
	if d, ok := r.cache.lookup(r.key, before, has); ok {
		return d, before.size, nil
	}
	began := r.cache.now()
	f, err := r.open()
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	d, small, err := hash(f, before.size)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", r.name, err)
	}
	if keep != nil {
		if err := keep(d, before.size, small, f); err != nil {
			return "", 0, fmt.Errorf("storing %s: %w", r.name, err)
		}
	}
	if after, err := f.Stat(); err != nil || !stat(after).same(before) {
		return "", 0, fault.New(fault.Conflict, "%s changed while it was being read", r.name).
			Mend("build again once nothing writes to it")
	}
	r.cache.remember(r.key, before, d, began)
	return d, before.size, nil
}

// hash reads the whole file; small is its bytes unless they are many.
func hash(f io.Reader, size int64) (d digest.Digest, small []byte, err error) {
	if size > fileLimit {
		return "", nil, fault.New(fault.Invalid, "it has %d bytes; a file of an artifact may have %d", size, int64(fileLimit))
	}
	if size <= smallFile {
		b, err := io.ReadAll(io.LimitReader(f, size+1))
		return digest.FromBytes(b), b, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, size+1)); err != nil {
		return "", nil, err
	}
	return digest.NewDigest(digest.SHA256, h), nil, nil
}

var errNotRegular = errors.New("not a regular file")
