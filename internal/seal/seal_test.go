package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

func newStore(t testing.TB) *object.Store {
	t.Helper()
	return openStore(t, t.TempDir())
}

func openStore(t testing.TB, dir string) *object.Store {
	t.Helper()
	s, err := object.Open(dir)
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

// richTree stores a tree with something of everything a seal can hold.
func richTree(t testing.TB, s *object.Store) image.Tree {
	t.Helper()
	b := s.NewBatch()
	defer b.Discard()
	file := func(path string, mode uint32, content string) image.Entry {
		d, _, err := b.Put(strings.NewReader(content), -1)
		if err != nil {
			t.Fatal(err)
		}
		return image.Entry{Path: path, Type: image.File, Mode: mode, MTime: 1_700_000_000, Size: int64(len(content)), Digest: d}
	}
	suid := file("usr/bin/suid", 0o4755, "#!/bin/sh\n")
	suid.UID, suid.GID, suid.MTime = 70_000, 4_000_000_000, 5
	capable := file("usr/bin/capable", 0o755, "elf")
	capable.Xattrs = map[string]string{
		"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"user.note":           "a value with \x00 and \xff",
		"user.large":          strings.Repeat("large ", 500),
	}
	empty := file("etc/empty", 0o600, "")
	empty.Xattrs = map[string]string{"user.empty": ""}
	entries := []image.Entry{
		suid, capable, empty,
		file("usr/share/big", 0o444, strings.Repeat("0123456789", 1_000_000)),
		file("usr/share/same-1", 0o644, "same"), file("usr/share/same-2", 0o640, "same"),
		file("etc/ü \n\"x\\", 0o644, "odd name"), file(strings.Repeat("d/", 60)+"deep", 0o644, "deep"),
		{Path: "lib", Type: image.Symlink, Mode: 0o777, Link: "usr/lib", MTime: 1_700_000_000},
		{Path: "etc/long", Type: image.Symlink, Mode: 0o777, Link: strings.Repeat("../x/", 300), MTime: 9},
		{Path: "tmp", Type: image.Dir, Mode: 0o1777, MTime: 1_700_000_000},
		{Path: "srv", Type: image.Dir, Mode: 0o2750, UID: 33, GID: 33, MTime: 1, Xattrs: map[string]string{"user.dir": "yes"}},
	}
	for i := range 400 { // a directory of several blocks
		entries = append(entries, file(fmt.Sprintf("var/many/a-name-of-some-length-%03d", i), 0o644, fmt.Sprint(i%50)))
	}
	tree := image.Sorted(entries).WithParents(1_700_000_000)
	if err := errors.Join(tree.Validate(), b.Commit()); err != nil {
		t.Fatal(err)
	}
	return tree
}

func put(t testing.TB, s *object.Store, tree image.Tree) digest.Digest {
	t.Helper()
	d, err := Put(s, tree)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReadIsTheTree(t *testing.T) {
	s := newStore(t)
	want := richTree(t, s)
	got, err := Read(s, put(t, s, want))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestWriteIsAFunctionOfTheTree(t *testing.T) {
	s := newStore(t)
	tree := richTree(t, s)
	var first bytes.Buffer
	if err := Write(&first, tree); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(5) {
		entries := append([]image.Entry(nil), tree.Entries...)
		r := rand.New(rand.NewPCG(seed, 0))
		r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		var again bytes.Buffer
		if err := Write(&again, image.Sorted(entries)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Fatal("the same tree gives other bytes")
		}
	}
	for i, e := range tree.Entries[:20] {
		changed := image.Tree{Entries: append([]image.Entry(nil), tree.Entries...)}
		e.MTime++
		changed.Entries[i] = e
		var other bytes.Buffer
		if err := Write(&other, changed); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(first.Bytes(), other.Bytes()) {
			t.Fatalf("the seal does not cover the time of %q", e.Path)
		}
	}
}

func TestSize(t *testing.T) {
	var entries []image.Entry
	for i := range 2500 {
		content := fmt.Sprint(i)
		entries = append(entries, image.Entry{Path: fmt.Sprintf("usr/share/doc/package-%d/some-file-%d.html", i/10, i), Type: image.File,
			Mode: 0o644, MTime: 1_700_000_000, Size: 14_000, Digest: digest.FromString(content)})
	}
	var b bytes.Buffer
	if err := Write(&b, image.Sorted(entries).WithParents(1_700_000_000)); err != nil {
		t.Fatal(err)
	}
	t.Logf("2,500 files of 35 MB: %d bytes", b.Len())
	if b.Len() > 600_000 {
		t.Errorf("the metadata of 2,500 files takes %d bytes", b.Len())
	}
}

func TestVerifyNamesTheDamage(t *testing.T) {
	s := newStore(t)
	tree := richTree(t, s)
	seal := put(t, s, tree)
	r, err := Verify(context.Background(), s, seal)
	if err != nil || r.Files != 408 || len(r.Damage) > 0 {
		t.Fatalf("undamaged: %+v, %v", r, err)
	}
	same, _ := tree.Lookup("usr/share/same-1")
	big, _ := tree.Lookup("usr/share/big")
	sameFile, _ := s.File(same.Digest)
	flip(t, sameFile, 2)
	if err := s.Remove(big.Digest); err != nil {
		t.Fatal(err)
	}
	r, err = Verify(context.Background(), s, seal)
	var paths []string
	for _, d := range r.Damage {
		paths = append(paths, d.Path)
	}
	if diff := cmp.Diff([]string{"/usr/share/big", "/usr/share/same-1", "/usr/share/same-2"}, paths); diff != "" {
		t.Error(diff)
	}
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused {
		t.Fatalf("Verify: %v, want a refusal", err)
	}
	for _, want := range []string{"/usr/share/big: ", "/usr/share/same-2: ", sameFile} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
	t.Attr("refused", "path <- one bit of a file of a sealed tree, and a file that is gone")

	sealFile, _ := s.File(seal)
	flip(t, sealFile, 5000)
	r, err = Verify(context.Background(), s, seal)
	if len(r.Damage) != 1 || r.Damage[0].File != sealFile || r.Damage[0].Path != "" || fault.Of(err).Kind != fault.Refused {
		t.Errorf("flipped bit in the seal: %+v, %v", r, err)
	}
	if _, err := Read(s, seal); err == nil || fault.Of(err).Kind != fault.Refused {
		t.Errorf("Read of a damaged seal: %v", err)
	}
}

// Every byte of a sealed tree counts.
func TestFlippedBitInSeal(t *testing.T) {
	s := newStore(t)
	b := s.NewBatch()
	defer b.Discard()
	d, _, err := b.Put(strings.NewReader("hello"), -1)
	if err := errors.Join(err, b.Commit()); err != nil {
		t.Fatal(err)
	}
	seal := put(t, s, image.Sorted([]image.Entry{{Path: "usr/hello", Type: image.File, Mode: 0o644, Size: 5, Digest: d}}).WithParents(0))
	file, _ := s.File(seal)
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := range fi.Size() {
		flip(t, file, at)
		r, err := Verify(t.Context(), s, seal)
		if fault.Of(err) == nil || fault.Of(err).Kind != fault.Refused || len(r.Damage) != 1 || r.Damage[0].File != file {
			t.Errorf("byte %d, Verify: %+v, %v", at, r, err)
		}
		if _, err := Read(s, seal); fault.Of(err) == nil || fault.Of(err).Kind != fault.Refused {
			t.Errorf("byte %d, Read: %v", at, err)
		}
		flip(t, file, at) // as it was
	}
	t.Attr("refused", fmt.Sprintf("digest <- one bit of each of the %d bytes of a sealed tree", fi.Size()))
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	seal := put(t, s, richTree(t, s))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, s, seal); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: %v", err)
	}
}

func TestReadRefusesGarbage(t *testing.T) {
	s := newStore(t)
	var b bytes.Buffer
	if err := Write(&b, richTree(t, s)); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < b.Len(); n += b.Len() / 40 {
		d, err := s.PutBytes(b.Bytes()[:n])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(s, d); err == nil || fault.Of(err).Kind != fault.Refused {
			t.Errorf("an image cut after %d bytes: %v, want a refusal", n, err)
		}
	}
	if _, err := Read(s, digest.FromString("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of a missing seal: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	e := image.Entry{Path: "a/b", Type: image.File, Size: 3, Digest: digest.FromString("abc"), Xattrs: map[string]string{"user.a": "b"}}
	l := image.Entry{Path: "a/l", Type: image.Symlink, Mode: 0o777, Link: "b"}
	var b bytes.Buffer
	if err := Write(&b, image.Sorted([]image.Entry{e, l}).WithParents(0)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := decode(b)
		if err == nil {
			err = tree.Validate()
		} else if fault.Of(err).Kind == fault.Refused {
			err = nil
		}
		if err != nil {
			t.Error(err)
		}
	})
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
