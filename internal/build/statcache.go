package build

import (
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// statCache remembers the digest of files that were read before, so that an
// unchanged source directory is not read again. It is a cache only: whatever is
// wrong with its file, it starts empty.
//
// A file is taken to be unchanged when size, mtime, ctime, inode and device are
// those of the last time. That is only sound if a later write must have changed the
// ctime: a file that changed so shortly before it was read that a second change
// could fall into the same tick of the clock ("racily clean", as Git's index has
// it) is not remembered.
type statCache struct {
	path string
	now  func() time.Time

	mu      sync.Mutex
	files   []cachedFile
	index   map[string]int // in files, by path
	changed bool
	reads   int
}

// cachedFile is a file whose digest is known.
type cachedFile struct {
	path string // absolute
	statEntry
	sum  [32]byte
	seen bool // looked up in this run: the others are dropped on save
}

// statEntry is what tells whether a file changed.
type statEntry struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
	unknown      bool  // the file system tells too little: never remembered
}

// openStatCache reads the cache at path.
func openStatCache(path string, now func() time.Time) *statCache {
	c := &statCache{path: path, now: now}
	if b, err := os.ReadFile(path); err == nil {
		c.files, _ = decodeStatCache(b) // none of a damaged one
	}
	c.index = make(map[string]int, len(c.files))
	for i, f := range c.files {
		c.index[f.path] = i
	}
	return c
}

// stat is for files that fs.FileInfo describes.
func stat(info fs.FileInfo) statEntry {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return statEntry{size: info.Size(), unknown: true}
	}
	return statEntry{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// statOf is for files that the kernel describes.
func statOf(st *unix.Stat_t) statEntry {
	return statEntry{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// lookup gives the digest of the file if it is known to be unchanged. What the
// cache holds was durable when it was written, so an object that is still there
// needs no further sync.
func (c *statCache) lookup(path string, now statEntry) (digest.Digest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.index[path]
	if !ok {
		return "", false
	}
	f := &c.files[i]
	f.seen = true
	if now.unknown || f.statEntry != now {
		return "", false
	}
	return image.FromSum(f.sum), true
}

// readCount is how many files were read so far because the cache did not know them.
func (c *statCache) readCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

// remember stores what was read from a file whose metadata was st both before
// and after, reading having begun at the given time.
func (c *statCache) remember(path string, st statEntry, d digest.Digest, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.changed = true
	i, ok := c.index[path]
	if !ok {
		i = len(c.files)
		c.index[path] = i
		c.files = append(c.files, cachedFile{path: path})
	}
	f := &c.files[i]
	f.statEntry, f.seen = st, !st.unknown && !racy(st, began)
	if n, err := hex.Decode(f.sum[:], []byte(d.Encoded())); err != nil || n != len(f.sum) {
		f.seen = false
	}
	if !f.seen {
		f.unknown = true // not to be found, and dropped on save
	}
}

// racy tells whether a write after began could leave the ctime as it is: kernels
// stamp with the time of their last tick (up to 10 ms old), and file systems that
// keep whole or even seconds only show themselves by a round ctime.
func racy(st statEntry, began time.Time) bool {
	margin := 25 * time.Millisecond
	if st.ctime%int64(time.Second) == 0 {
		margin = 2 * time.Second
	}
	return st.ctime > began.Add(-margin).UnixNano()
}

// save writes the cache if something was read, dropping files that were not met
// in this run. It is not made durable: a lost cache costs a re-read.
func (c *statCache) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var keep []cachedFile
	for _, f := range c.files {
		if f.seen {
			keep = append(keep, f)
		}
	}
	if !c.changed && len(keep) == len(c.files) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
		return err
	}
	if err := durable.Swap(c.path, encodeStatCache(keep), 0o600); err != nil {
		return err
	}
	c.changed = false
	return nil
}
