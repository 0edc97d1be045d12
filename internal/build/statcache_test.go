package build

import (
	"os"
	"path/filepath"
	"testing"
	"time"

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
	if c := openStatCache(store, later); len(c.entries) != 0 {
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
