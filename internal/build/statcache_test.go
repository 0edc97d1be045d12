package build

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestStatCache(t *testing.T) {
	dir := t.TempDir()
	file, store := filepath.Join(dir, "file"), filepath.Join(dir, "cache", "stat")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	later := func() time.Time { return time.Now().Add(time.Minute) }
	// read gives the digest and whether the file had to be read.
	read := func(now func() time.Time) (digest.Digest, bool) {
		t.Helper()
		c := openStatCache(store, now)
		d, err := fileDigest(file, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
		return d, c.readCount() == 1
	}

	write("one")
	if d, had := read(later); d != digest.FromString("one") || !had {
		t.Errorf("first: %s, read %v", d, had)
	}
	if d, had := read(later); d != digest.FromString("one") || had {
		t.Errorf("unchanged: %s, read %v", d, had)
	}
	write("two")
	if d, had := read(time.Now); d != digest.FromString("two") || !had {
		t.Errorf("changed: %s, read %v", d, had)
	}
	// It was read in the moment it was written: a write that leaves size and ctime
	// as they are could follow, so it is read again.
	if _, had := read(later); !had {
		t.Error("a file that was read as it was written was taken for unchanged")
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	write("six")
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if d, had := read(later); d != digest.FromString("six") || !had {
		t.Errorf("same size and time of modification: %s, read %v", d, had)
	}
	if err := os.WriteFile(store, []byte("\x1f\x8bnot a cache"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, had := read(later); d != digest.FromString("six") || !had {
		t.Errorf("a damaged cache: %s, read %v", d, had)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c := openStatCache(store, later)
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if c := openStatCache(store, later); len(c.files) != 0 {
		t.Error("a file that is gone stays in the cache")
	}
}

func TestRacy(t *testing.T) {
	began := time.Unix(1000, 500e6)
	for _, c := range []struct {
		ctime time.Time
		want  bool
	}{
		{began.Add(-time.Hour - time.Millisecond), false},
		{began.Add(-10 * time.Millisecond), true},
		{began.Add(time.Second + time.Millisecond), true}, // the clock of a server is ahead
		{time.Unix(1000, 0), true},                        // whole seconds: may be a coarse clock
		{time.Unix(997, 0), false},
	} {
		if got := racy(statEntry{ctime: c.ctime.UnixNano()}, began); got != c.want {
			t.Errorf("ctime %v before reading: racy %v, want %v", began.Sub(c.ctime), got, c.want)
		}
	}
}

// TestStatCacheFile holds that the file of a cache gives what was put into it, and
// that a damaged one gives nothing: a wrong digest would get into an artifact.
func TestStatCacheFile(t *testing.T) {
	var files []cachedFile
	for i, path := range []string{"/src/a", "/src/a/b", "/src/ab", "/zz \n\xff", ""} {
		f := cachedFile{path: path, statEntry: statEntry{dev: uint64(i), ino: 1 << 63 >> i, size: int64(-i), mtime: 1 << 62, ctime: int64(i) - 5}}
		f.sum[i] = 0xff
		files = append(files, f)
	}
	b := encodeStatCache(files)
	got, err := decodeStatCache(b)
	slices.SortFunc(files, func(a, b cachedFile) int { return strings.Compare(a.path, b.path) })
	if diff := cmp.Diff(files, got, cmp.AllowUnexported(cachedFile{}, statEntry{})); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x20
		if got, err := decodeStatCache(bad); err == nil || got != nil {
			t.Errorf("with byte %d changed it gives %v, %v", i, got, err)
		}
		if _, err := decodeStatCache(b[:i]); err == nil {
			t.Errorf("the first %d bytes alone are taken for a cache", i)
		}
	}
}

// FuzzStatCache holds that no input harms decoding, also one whose checksum is right.
func FuzzStatCache(f *testing.F) {
	f.Add(encodeStatCache([]cachedFile{{path: "/a"}, {path: "/a/b", statEntry: statEntry{ino: 7}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
		files, err := decodeStatCache(b)
		if err != nil {
			return
		}
		again, err := decodeStatCache(encodeStatCache(files))
		if err != nil || len(again) != len(files) {
			t.Errorf("%d files, encoded and decoded again %d: %v", len(files), len(again), err)
		}
	})
}
