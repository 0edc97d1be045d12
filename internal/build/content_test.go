package build

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// source is a directory with a store, and a cache that believes what it read.
func source(t *testing.T) (*content, *object.Store) {
	t.Helper()
	objects, err := object.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(time.Minute) }
	c, err := openContent(t.TempDir(), openStatCache(filepath.Join(t.TempDir(), "stat"), later))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), objects.Close()); err != nil {
			t.Error(err)
		}
	})
	return c, objects
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestLostObjectIsReadAgain shows that a file which the cache knows is read all the
// same when the store has lost its bytes: building again is the remedy for that.
func TestLostObjectIsReadAgain(t *testing.T) {
	c, objects := source(t)
	write(t, c.dir+"/a/one", "one")
	write(t, c.dir+"/a/two", "two")
	build := func() {
		t.Helper()
		batch := objects.NewBatch()
		defer batch.Discard()
		_, _, err := filesSource(t.Context(), objects, batch, c, &definition.FilesSource{From: []string{"a/**"}, To: "/srv/"})
		if err := errors.Join(err, batch.Commit()); err != nil {
			t.Fatal(err)
		}
	}
	build()
	if err := objects.Remove(digest.FromString("two")); err != nil {
		t.Fatal(err)
	}
	read := c.cache.readCount()
	build()
	if !objects.Has(digest.FromString("two")) {
		t.Error("the lost object did not come back")
	}
	if got := c.cache.readCount() - read; got != 1 {
		t.Errorf("%d files were read again, want the one that was lost", got)
	}
}

// TestChangedWhileRead shows that a file which is not what was seen of it before is
// refused, and not remembered.
func TestChangedWhileRead(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": smallFile + 10} {
		t.Run(name, func(t *testing.T) {
			c, objects := source(t)
			write(t, c.dir+"/f", string(make([]byte, size)))
			var st unix.Stat_t
			if err := unix.Lstat(c.dir+"/f", &st); err != nil {
				t.Fatal(err)
			}
			before := statOf(&st)
			past := time.Unix(1, 0)
			if err := os.Chtimes(c.dir+"/f", past, past); err != nil {
				t.Fatal(err)
			}
			batch := objects.NewBatch()
			defer batch.Discard()
			if _, _, err := c.put("f", before, batch); err == nil || fault.Of(err).Kind != fault.Conflict {
				t.Errorf("got %v, want a Conflict", err)
			}
			if _, ok := c.known("f", before); ok {
				t.Error("it is remembered")
			}
		})
	}
}

// TestOpenStaysBelow shows that no link leads out of the directory, also one that
// takes the place of a directory after it was listed.
func TestOpenStaysBelow(t *testing.T) {
	c, _ := source(t)
	outside := t.TempDir()
	write(t, outside+"/secret", "secret")
	write(t, c.dir+"/in/file", "file")
	for name, to := range map[string]string{"out": outside, "up": "../../../../../../../../" + outside, "link": outside + "/secret", "well": "in"} {
		if err := os.Symlink(to, filepath.Join(c.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, allowed := range map[string]bool{"in/file": true, "well/file": true, "out/secret": false, "up/secret": false, "link": false, "../" + filepath.Base(c.dir) + "/in/file": false} {
		f, err := c.open(name)
		if (err == nil) != allowed {
			t.Errorf("%s: %v, allowed: %v", name, err, allowed)
		}
		if err == nil {
			f.Close()
		}
	}
}

// TestPlaceThroughLinks shows where several files of directories land that are
// links below, the second as the first.
func TestPlaceThroughLinks(t *testing.T) {
	lower := image.Tree{Entries: []image.Entry{
		{Path: ".", Type: image.Dir, Mode: 0o755},
		{Path: "bin", Type: image.Symlink, Mode: 0o777, Link: "usr/bin"},
		{Path: "usr", Type: image.Dir, Mode: 0o711},
		{Path: "usr/bin", Type: image.Dir, Mode: 0o700},
	}}
	file := func(path string) image.Entry {
		return image.Entry{Path: path, Type: image.File, Mode: 0o755, Size: 1, Digest: digest.FromString("x")}
	}
	tree, from, err := place(lower, []image.Entry{file("srv/a.txt"), file("srv/a/b"), file("bin/two"), file("bin/one"), file("usr/bin/three")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range tree.Entries {
		got = append(got, e.Path)
	}
	want := []string{".", "srv", "srv/a", "srv/a.txt", "srv/a/b", "usr", "usr/bin", "usr/bin/one", "usr/bin/three", "usr/bin/two"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got, want)
			break
		}
	}
	if want := []int{added, added, added, 0, 1, added, added, 3, 4, 2}; !slices.Equal(from, want) {
		t.Errorf("the entries are of %v, want %v", from, want)
	}
	for _, e := range tree.Entries {
		if e.Path == "usr" && e.Mode != 0o711 || e.Path == "usr/bin" && e.Mode != 0o700 {
			t.Errorf("%s has mode %o, not that of below", e.Path, e.Mode)
		}
	}
}
