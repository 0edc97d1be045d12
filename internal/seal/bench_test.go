package seal

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// sourceFiles writes 4,000 files of 12.5 KB, 50 MB in all.
func sourceFiles(b *testing.B) string {
	b.Helper()
	root := b.TempDir()
	r := rand.NewChaCha8([32]byte{1})
	content := make([]byte, 12_500)
	for i := range 4000 {
		if _, err := r.Read(content); err != nil {
			b.Fatal(err)
		}
		binary.LittleEndian.PutUint64(content, uint64(i))
		path := filepath.Join(root, fmt.Sprintf("srv/www/section-%02d/page-%04d.html", i/100, i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

// sealDirectory stores every file below root and seals the tree.
func sealDirectory(s *object.Store, root string) (digest.Digest, error) {
	batch := s.NewBatch()
	defer batch.Discard()
	var mu sync.Mutex
	var entries []image.Entry
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		g.Go(func() error {
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			d, n, err := batch.Put(f, -1)
			mu.Lock()
			defer mu.Unlock()
			entries = append(entries, image.Entry{Path: p[len(root)+1:], Type: image.File, Mode: 0o644, Size: n, Digest: d})
			return err
		})
		return nil
	})
	if gerr := g.Wait(); err == nil {
		err = gerr
	}
	if err != nil {
		return "", err
	}
	seal, err := PutBatch(batch, image.Sorted(entries).WithParents(0))
	if err != nil {
		return "", err
	}
	return seal, batch.Commit()
}

// BenchmarkSealCold seals 50 MB in 4,000 files into an empty store.
func BenchmarkSealCold(b *testing.B) {
	root := sourceFiles(b)
	for b.Loop() {
		b.StopTimer()
		s := newStore(b)
		b.StartTimer()
		if _, err := sealDirectory(s, root); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSealUnchanged seals the same again, reading every file again.
func BenchmarkSealUnchanged(b *testing.B) {
	root, s := sourceFiles(b), newStore(b)
	want, err := sealDirectory(s, root)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got, err := sealDirectory(s, root); err != nil || got != want {
			b.Fatal(got, err)
		}
	}
}

func benchTree(b *testing.B) (*object.Store, image.Tree) {
	b.Helper()
	s := newStore(b)
	seal, err := sealDirectory(s, sourceFiles(b))
	if err != nil {
		b.Fatal(err)
	}
	t, err := Read(s, seal)
	if err != nil {
		b.Fatal(err)
	}
	return s, t
}

// BenchmarkWrite makes the metadata image of 4,000 files.
func BenchmarkWrite(b *testing.B) {
	_, t := benchTree(b)
	for b.Loop() {
		if err := Write(io.Discard, t); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify reads 50 MB in 4,000 objects again.
func BenchmarkVerify(b *testing.B) {
	s, t := benchTree(b)
	seal, err := Put(s, t)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Verify(b.Context(), s, seal); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMount mounts and unmounts a sealed tree of 4,000 files.
func BenchmarkMount(b *testing.B) {
	s, t := benchTree(b)
	seal, err := Put(s, t)
	if err != nil {
		b.Fatal(err)
	}
	target := b.TempDir()
	for b.Loop() {
		if err := Mount(target, s.Path(), seal); err != nil {
			b.Fatal(err)
		}
		if err := unmount(target); err != nil {
			b.Fatal(err)
		}
	}
}
