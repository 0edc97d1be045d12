package build

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// TestLockCache shows that what is remembered of a lock file is used for the same
// text alone, and that a damaged memory does no harm.
func TestLockCache(t *testing.T) {
	b := &Builder{Dir: t.TempDir(), Definition: t.TempDir()}
	lock := func(toolchain string) *LockFile {
		l := NewLockFile()
		l.Components["api"] = ComponentLock{Go: []GoLock{{Package: "./cmd/api", Toolchain: toolchain}}}
		if err := l.setSums(); err != nil {
			t.Fatal(err)
		}
		return l
	}
	wantLock := func(when, toolchain string) {
		t.Helper()
		got, err := b.readLock()
		if diff := cmp.Diff(lock(toolchain), got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", when, err, diff)
		}
	}
	cache := b.cachePath("lock", b.Definition)
	alter := func(old, text string) {
		t.Helper()
		raw, err := os.ReadFile(cache)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cache, bytes.Replace(raw, []byte(old), []byte(text), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := b.readLock(); err != nil || len(l.Components) > 0 {
		t.Errorf("without a lock file: %v, %v", l, err)
	}
	if _, err := lock("go1.26.1").Write(b.Definition); err != nil {
		t.Fatal(err)
	}
	wantLock("first", "go1.26.1")
	wantLock("again", "go1.26.1")
	text, err := os.ReadFile(filepath.Join(b.Definition, LockName))
	if err != nil {
		t.Fatal(err)
	}
	if err := keepLock(cache, cachedLock{digest.FromBytes(text), lock("go1.26.2")}); err != nil {
		t.Fatal(err)
	}
	wantLock("the cache has another", "go1.26.2")
	alter("go1.26.2", "go1.26.4")
	wantLock("the cache has one that was edited", "go1.26.1")
	alter("{", "")
	wantLock("the cache is damaged", "go1.26.1")
	if _, err := lock("go1.26.3").Write(b.Definition); err != nil {
		t.Fatal(err)
	}
	wantLock("another text", "go1.26.3")
	if err := os.WriteFile(filepath.Join(b.Definition, LockName), []byte("schema: [\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.readLock(); err == nil {
		t.Error("a malformed lock file is accepted")
	}
}
