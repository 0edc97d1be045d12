package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestPutAndRead(t *testing.T) {
	s := newStore(t)
	for _, size := range []int{0, 1, 4096, smallObject, smallObject + 1, 3 * smallObject} {
		want := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]
		d, n, err := s.Put(bytes.NewReader(want), int64(size))
		if err != nil || n != int64(size) || d != digest.FromBytes(want) {
			t.Fatalf("Put of %d bytes: %s, %d, %v", size, d, n, err)
		}
		got, err := s.ReadAll(d, int64(size))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("ReadAll of %d bytes: %d bytes, %v", size, len(got), err)
		}
		path, _ := s.File(d)
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o444 {
			t.Errorf("%s: mode %v, %v; want 0444", path, fi.Mode(), err)
		}
		if err := s.Verify(d); err != nil {
			t.Error(err)
		}
	}
	wantNoTemps(t, s)
}

func TestPutTwiceWritesOnce(t *testing.T) {
	s := newStore(t)
	for _, size := range []int{10, 2 * smallObject} {
		content := bytes.Repeat([]byte{3}, size)
		d, err := s.PutBytes(content)
		if err != nil {
			t.Fatal(err)
		}
		path, _ := s.File(d)
		before, _ := os.Stat(path)
		if _, _, err := s.Put(bytes.NewReader(content), -1); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutVerified(bytes.NewReader(content), d, -1); err != nil {
			t.Fatal(err)
		}
		after, _ := os.Stat(path)
		if !os.SameFile(before, after) {
			t.Errorf("%d bytes were written again", size)
		}
	}
	wantNoTemps(t, s)
}

func TestPutVerifiedRefusesOtherBytes(t *testing.T) {
	s := newStore(t)
	for _, size := range []int{10, 2 * smallObject} {
		right := bytes.Repeat([]byte{1}, size)
		wrong := bytes.Clone(right)
		wrong[size-1] ^= 1
		want := digest.FromBytes(right)
		refused := func(stored bool) {
			t.Helper()
			_, err := s.PutVerified(bytes.NewReader(wrong), want, -1)
			if f := fault.Of(err); f == nil || f.Kind != fault.Refused {
				t.Errorf("PutVerified of other bytes: %v, want a refusal", err)
			}
			if s.Has(want) != stored || s.Has(digest.FromBytes(wrong)) {
				t.Error("PutVerified changed what is stored")
			}
		}
		refused(false)
		if _, err := s.PutVerified(bytes.NewReader(right), want, int64(size)); err != nil {
			t.Fatal(err)
		}
		refused(true)
		t.Attr("refused", fmt.Sprintf("digest <- %d other bytes than the name says", size))
	}
	wantNoTemps(t, s)
}

func TestPutLimit(t *testing.T) {
	s := newStore(t)
	for _, size := range []int{1, 10, smallObject + 5} {
		_, _, err := s.Put(bytes.NewReader(make([]byte, size)), int64(size-1))
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid {
			t.Errorf("Put of %d bytes, %d allowed: %v, want an Invalid fault", size, size-1, err)
		}
	}
	wantObjects(t, s)
	wantNoTemps(t, s)
}

func TestPutReportsTheSource(t *testing.T) {
	s := newStore(t)
	broken := errors.New("the network went away")
	for _, size := range []int{1, 2 * smallObject} {
		r := io.MultiReader(bytes.NewReader(make([]byte, size)), brokenReader{broken})
		if _, _, err := s.Put(r, -1); !errors.Is(err, broken) {
			t.Errorf("Put: %v, want the source's error", err)
		}
	}
	wantObjects(t, s)
	wantNoTemps(t, s)
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

// Every byte of a small object counts, and every one that is tried of a large one.
func TestVerifyFindsAFlippedBit(t *testing.T) {
	s := newStore(t)
	seed := rand.Uint64()
	t.Logf("the samples are of the seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, size := range []int{24, 3 * smallObject} {
		d, err := s.PutBytes(bytes.Repeat([]byte("the bytes that were laid"), size/24+1)[:size])
		if err != nil {
			t.Fatal(err)
		}
		path, _ := s.File(d)
		offsets := random.Perm(size)
		for _, at := range offsets[:min(size, 100)] {
			flip(t, path, int64(at))
			err := s.Verify(d)
			if f := fault.Of(err); f == nil || f.Kind != fault.Refused || f.Where != path {
				t.Errorf("byte %d, Verify: %v, want a refusal at %s", at, err, path)
			}
			_, err = s.ReadAll(d, int64(size))
			if f := fault.Of(err); f == nil || f.Kind != fault.Refused || f.Where != path {
				t.Errorf("byte %d, ReadAll: %v, want a refusal at %s", at, err, path)
			}
			flip(t, path, int64(at)) // as it was
		}
		if err := s.Verify(d); err != nil {
			t.Error(err)
		}
		t.Attr("refused", fmt.Sprintf("digest <- one bit of an object of %d bytes, %d times", size, min(size, 100)))
	}
}

func TestMissing(t *testing.T) {
	s := newStore(t)
	d := digest.FromString("nothing")
	_, err := s.Open(d)
	if !errors.Is(err, fs.ErrNotExist) || fault.Of(err).Kind != fault.NotFound {
		t.Errorf("Open: %v", err)
	}
	if err := s.Verify(d); !errors.Is(err, fs.ErrNotExist) || fault.Of(err).Kind != fault.NotFound {
		t.Errorf("Verify: %v", err)
	}
	if err := s.Remove(d); err != nil {
		t.Errorf("Remove: %v", err)
	}
	for _, bad := range []digest.Digest{"", "sha256:ab", "sha256:../../../../etc/passwd", "sha512:" + digest.Digest(strings.Repeat("a", 128))} {
		if _, err := s.Open(bad); err == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("Open(%q): %v, want an Invalid fault", bad, err)
		}
	}
}

func TestBatch(t *testing.T) {
	for _, count := range []int{1, fewObjects, fewObjects + 1, 200} {
		s := newStore(t)
		b := s.NewBatch()
		var want []digest.Digest
		for i := range count {
			content := strings.Repeat("x", i)
			for range 2 { // the second time it is there already
				d, _, err := b.Put(strings.NewReader(content), -1)
				if err != nil {
					t.Fatal(err)
				}
				if s.Has(d) {
					t.Fatal("an object has its name before Commit")
				}
			}
			want = append(want, digest.FromString(content))
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		b.Discard()
		wantObjects(t, s, want...)
		wantNoTemps(t, s)
	}
}

// TestBatchRefs shows that a reference comes after the objects of its batch, that
// these can be read before they have their names, and that Settle gives them names.
func TestBatchRefs(t *testing.T) {
	s := newStore(t)
	old, err := s.PutBytes([]byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	defer b.Discard()
	d, err := b.PutBytes([]byte("new"))
	if err := errors.Join(err, b.SetRef("build", "a", d)); err != nil {
		t.Fatal(err)
	}
	wantBatch := func(stage string, named, referred bool) {
		t.Helper()
		_, refErr := s.Ref("build", "a")
		if s.Has(d) != named || (refErr == nil) != referred {
			t.Errorf("%s: the object is there: %v, want %v; the reference: %v, want it: %v", stage, s.Has(d), named, refErr, referred)
		}
		for want, d := range map[string]digest.Digest{"old": old, "new": d} {
			got, err := b.ReadAll(d, 10)
			if err != nil || string(got) != want {
				t.Errorf("%s: the batch gives %q, %v; want %q", stage, got, err, want)
			}
		}
	}
	wantBatch("added", false, false)
	if err := b.Settle(); err != nil {
		t.Fatal(err)
	}
	wantBatch("settled", true, false)
	for range 2 { // nothing the second time
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		wantBatch("committed", true, true)
	}
	wantObjects(t, s, old, d)
	wantNoTemps(t, s)
}

// TestMissingOfMany looks for more than one goroutine does.
func TestMissingOfMany(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	var all, want []digest.Digest
	for i := range 3 * lookFor {
		content := strings.Repeat("x", i)
		all = append(all, digest.FromString(content))
		if i%50 == 7 {
			want = append(want, digest.FromString(content))
			continue
		}
		if _, err := b.PutBytes([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.Missing(all)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBatchDiscard(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	if _, _, err := b.Put(strings.NewReader("x"), -1); err != nil {
		t.Fatal(err)
	}
	if err := b.SetRef("build", "a", digest.FromString("x")); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	wantObjects(t, s)
	wantNoTemps(t, s)
}

func TestRefs(t *testing.T) {
	s := newStore(t)
	if _, err := s.Ref("build", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Ref of none: %v", err)
	}
	one, two := digest.FromString("1"), digest.FromString("2")
	for _, err := range []error{s.SetRef("build", "a", one), s.SetRef("build", "a", two), s.SetRef("build", "b~1:2+3", one)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Refs("build")
	if diff := cmp.Diff(map[string]digest.Digest{"a": two, "b~1:2+3": one}, got); diff != "" || err != nil {
		t.Errorf("Refs: %v\n%s", err, diff)
	}
	if err := errors.Join(s.TouchRef("build", "a"), s.RemoveRef("build", "a"), s.RemoveRef("build", "a")); err != nil {
		t.Error(err)
	}
	if _, err := s.Ref("build", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Ref of a removed one: %v", err)
	}
	for _, bad := range []string{"", ".", "..", ".x", "a/b", strings.Repeat("n", 256)} {
		if err := s.SetRef("build", bad, one); err == nil {
			t.Errorf("SetRef accepted the name %q", bad)
		}
		if err := s.SetRef(bad, "a", one); err == nil {
			t.Errorf("SetRef accepted the kind %q", bad)
		}
	}
	wantNoTemps(t, s)
}

func wantObjects(t *testing.T, s *Store, want ...digest.Digest) {
	t.Helper()
	missing := map[digest.Digest]bool{}
	for _, d := range want {
		missing[d] = true
	}
	err := s.Walk(func(d digest.Digest, size int64) error {
		if !missing[d] {
			t.Errorf("object %s of %d bytes should not be there", d, size)
		}
		delete(missing, d)
		return s.Verify(d)
	})
	if err != nil {
		t.Error(err)
	}
	for d := range missing {
		t.Errorf("object %s is not there", d)
	}
}

// wantNoTemps checks that the store's session holds no file.
func wantNoTemps(t *testing.T, s *Store) {
	t.Helper()
	err := filepath.WalkDir(s.tmp(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("temporary file left: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func flip(t testing.TB, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] ^= 0x10
	if err == nil {
		_, err = f.WriteAt(b[:], offset)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
