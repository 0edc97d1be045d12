package build

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// fileLimit is the largest file that an artifact may hold, in bytes.
const fileLimit = 8 << 30

// smallFile is the size up to which a file is hashed as it is stored. A larger one
// is hashed first, and stored only if its bytes are not there: the store would have
// to write it to learn that.
const smallFile = 256<<10 - 1

// content reads the files of a directory, gives their digests, from a cache where
// they are unchanged, and brings their bytes into the object store. Below the
// directory it never follows a link out of it.
type content struct {
	dir   string   // absolute
	root  *os.Root // of dir
	top   *os.File // dir itself
	cache *statCache
}

func openContent(dir string, cache *statCache) (*content, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the directory %s cannot be read: %w", dir, err)
	}
	top, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, fault.New(fault.NotFound, "the directory %s cannot be read: %w", dir, err)
	}
	return &content{dir: dir, root: root, top: top, cache: cache}, nil
}

func (c *content) Close() error {
	c.top.Close() // only read from
	return c.root.Close()
}

// key is what the cache calls a file below the directory.
func (c *content) key(name string) string { return c.dir + "/" + name }

// known gives the digest of a file that the cache knows to be unchanged.
func (c *content) known(name string, now statEntry) (digest.Digest, bool) {
	return c.cache.lookup(c.key(name), now)
}

// put reads a regular file, gives its SHA-256 and size, and adds its bytes to the
// batch. before is what was seen of it.
func (c *content) put(name string, before statEntry, batch *object.Batch) (digest.Digest, int64, error) {
	began := c.cache.now()
	f, err := c.open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	if before.size > fileLimit {
		return "", 0, fmt.Errorf("reading %s: %w", name, tooLarge(before.size))
	}
	d, err := c.store(f, before.size, batch)
	if err != nil {
		return "", 0, fmt.Errorf("storing %s: %w", name, err)
	}
	if err := f.unchanged(name, before); err != nil {
		return "", 0, err
	}
	c.cache.remember(c.key(name), before, d, began)
	return d, before.size, nil
}

// store adds the bytes of a file of that size, unless it grew meanwhile, which is
// found out later.
func (c *content) store(f openFile, size int64, batch *object.Batch) (digest.Digest, error) {
	if size <= smallFile {
		d, _, err := batch.Put(io.LimitReader(f, size+1), -1)
		return d, err
	}
	d, err := hash(f, size)
	if err != nil {
		return "", err
	}
	if _, err := unix.Seek(f.fd, 0, io.SeekStart); err != nil {
		return "", err
	}
	_, err = batch.PutVerified(f, d, size)
	return d, err
}

// open opens a regular file below the directory. It goes around os.Root, which
// opens every directory on the way: a source may have thousands of files.
func (c *content) open(name string) (openFile, error) {
	for {
		fd, err := unix.Openat2(int(c.top.Fd()), name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == unix.EINTR || err == unix.EAGAIN { // something on the way was moved meanwhile
			continue
		}
		if err != nil {
			return openFile{}, &os.PathError{Op: "open", Path: c.key(name), Err: err}
		}
		return openFile{fd}, nil
	}
}

// openFile is a file without what os.File knows of it, which costs two calls more.
type openFile struct{ fd int }

func (f openFile) Close() { unix.Close(f.fd) } // it was only read from

// Read reads, as io.Reader says.
func (f openFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// unchanged fails when the file is not what was seen of it before.
func (f openFile) unchanged(name string, before statEntry) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil || statOf(&st) != before {
		return changed(name)
	}
	return nil
}

var errNotRegular = errors.New("not a regular file")

// fileDigest gives the SHA-256 of any regular file, following links.
func fileDigest(path string, cache *statCache) (digest.Digest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %w", path, errNotRegular)
	}
	before := stat(info)
	if d, ok := cache.lookup(path, before); ok {
		return d, nil
	}
	return readDigest(path, before, cache, cache.now())
}

func readDigest(path string, before statEntry, cache *statCache, began time.Time) (digest.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	d, err := hash(f, before.size)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	if after, err := f.Stat(); err != nil || stat(after) != before {
		return "", changed(path)
	}
	cache.remember(path, before, d, began)
	return d, nil
}

// hash reads a file of that size, and one byte more if it grew.
func hash(f io.Reader, size int64) (digest.Digest, error) {
	if size > fileLimit {
		return "", tooLarge(size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, size+1)); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

func tooLarge(size int64) error {
	return fault.New(fault.Invalid, "it has %d bytes; a file of an artifact may have %d", size, int64(fileLimit))
}

func changed(name string) error {
	return fault.New(fault.Conflict, "%s changed while it was being read", name).
		Mend("build again once nothing writes to it")
}
