package build

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
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
	entries map[string]statEntry // by absolute path
	seen    map[string]bool      // looked up in this run: the others are dropped on save
	changed bool
	hits    int
	reads   int
}

type statEntry struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
	digest       digest.Digest
	unknown      bool // the file system tells too little: never remembered
}

const statCacheHeader = "ashlar stat cache 1"

// openStatCache reads the cache at path.
func openStatCache(path string, now func() time.Time) *statCache {
	c := &statCache{path: path, now: now, entries: map[string]statEntry{}, seen: map[string]bool{}}
	f, err := os.Open(path)
	if err != nil {
		return c
	}
	defer f.Close()
	if entries, err := readStatCache(f); err == nil {
		c.entries = entries
	}
	return c
}

func readStatCache(r io.Reader) (map[string]statEntry, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(z)
	if line, err := in.ReadString('\n'); err != nil || line != statCacheHeader+"\n" {
		return nil, fmt.Errorf("not a stat cache")
	}
	entries := map[string]statEntry{}
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		e, name, err := parseStatLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		entries[name] = e
	}
}

func parseStatLine(line string) (statEntry, string, error) {
	fields := strings.SplitN(line, " ", 7)
	if len(fields) != 7 {
		return statEntry{}, "", fmt.Errorf("%d fields", len(fields))
	}
	e := statEntry{digest: digest.NewDigestFromEncoded(digest.SHA256, fields[0])}
	var bad error
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		bad = errors.Join(bad, err)
		return n
	}
	e.dev, e.ino = uint64(number(fields[1])), uint64(number(fields[2]))
	e.size, e.mtime, e.ctime = number(fields[3]), number(fields[4]), number(fields[5])
	if len(fields[0]) != 64 { // the object store looks closer, when it is asked for it
		bad = errors.Join(bad, fmt.Errorf("not a digest"))
	}
	name, err := strconv.Unquote(fields[6])
	return e, name, errors.Join(bad, err)
}

func stat(info fs.FileInfo) statEntry {
	e := statEntry{size: info.Size()}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		e.unknown = true
		return e
	}
	e.dev, e.ino = uint64(st.Dev), st.Ino
	e.mtime, e.ctime = st.Mtim.Nano(), st.Ctim.Nano()
	return e
}

func (e statEntry) same(o statEntry) bool {
	return e.dev == o.dev && e.ino == o.ino && e.size == o.size && e.mtime == o.mtime && e.ctime == o.ctime
}

// lookup gives the digest of the file if it is known to be unchanged and has,
// which may be nil, knows its bytes. What the cache holds was durable when it was
// written, so an object that is there needs no further sync.
func (c *statCache) lookup(path string, now statEntry, has func(digest.Digest) bool) (digest.Digest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[path] = true
	if e, ok := c.entries[path]; ok && !now.unknown && e.same(now) && (has == nil || has(e.digest)) {
		c.hits++
		return e.digest, true
	}
	c.reads++
	return "", false
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
	c.changed = true
	if st.unknown || racy(st, began) {
		delete(c.entries, path)
		return
	}
	st.digest = d
	c.entries[path] = st
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
	for path := range c.entries {
		if !c.seen[path] {
			delete(c.entries, path)
			c.changed = true
		}
	}
	if !c.changed {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), ".stat-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing after the rename
	if err := c.write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	c.changed = false
	return os.Rename(f.Name(), c.path)
}

func (c *statCache) write(w io.Writer) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(z)
	fmt.Fprintln(out, statCacheHeader)
	paths := make([]string, 0, len(c.entries))
	for p := range c.entries {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		e := c.entries[p]
		fmt.Fprintf(out, "%s %d %d %d %d %d %q\n", e.digest.Encoded(), int64(e.dev), int64(e.ino), e.size, e.mtime, e.ctime, p)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return z.Close()
}
