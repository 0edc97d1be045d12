package object

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestWriter: what came in pieces is one object, once, and what was given up is gone.
func TestWriter(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	content := strings.Repeat("piece ", 100000)
	want := digest.FromString(content)
	for range 2 { // the second time it is stored already
		w, err := s.NewWriter()
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitAfterSeq(content, "e ") {
			if _, err := io.WriteString(w, part); err != nil {
				t.Fatal(err)
			}
		}
		r, err := w.Reader()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := io.ReadAll(r); err != nil || string(again) != content {
			t.Errorf("reading what was written gives %d bytes (%v)", len(again), err)
		}
		r.Close()
		if w.Size() != int64(len(content)) || w.Digest() != want {
			t.Errorf("%d bytes, %s", w.Size(), w.Digest())
		}
		b := s.NewBatch()
		if d, n, err := b.Take(w); err != nil || d != want || n != int64(len(content)) {
			t.Fatalf("%s, %d bytes, %v", d, n, err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
		if got, err := s.ReadAll(want, 1<<20); err != nil || !bytes.Equal(got, []byte(content)) {
			t.Errorf("it is stored as %d bytes (%v)", len(got), err)
		}
	}
	w, err := s.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("given up")); err != nil {
		t.Fatal(err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(s.tmp(), "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%q are left (%v)", left, err)
	}
	if _, err := os.Stat(filepath.Join(s.Path(), want.Encoded()[:2])); err != nil {
		t.Error(err)
	}
}
