package image

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// TestTarReaderIsWriteTar: read whole or from any offset on, the bytes are those that
// WriteTar writes.
func TestTarReaderIsWriteTar(t *testing.T) {
	objects := bag{}
	for _, s := range []string{"", "1", "22", strings.Repeat("x", 5000), strings.Repeat("y", tarBlock)} {
		objects[digest.FromString(s)] = s
	}
	large := tree(file("a/large", strings.Repeat("x", 5000)), file("a/"+strings.Repeat("long", 50), strings.Repeat("y", tarBlock)))
	rapid.Check(t, func(r *rapid.T) {
		tr := trees(true).Draw(r, "tree")
		if rapid.Bool().Draw(r, "large") {
			tr = large
		}
		var want bytes.Buffer
		if err := WriteTar(&want, tr, objects); err != nil {
			r.Fatal(err)
		}
		reader, err := NewTarReader(tr, objects)
		if err != nil {
			r.Fatal(err)
		}
		if reader.Size() != int64(want.Len()) {
			r.Fatalf("the size is %d, want %d", reader.Size(), want.Len())
		}
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, want.Bytes()) {
			r.Fatalf("read whole it differs (%v)", err)
		}
		for range 5 {
			from := rapid.IntRange(0, want.Len()).Draw(r, "from")
			n := rapid.IntRange(0, want.Len()-from).Draw(r, "length")
			if _, err := reader.Seek(int64(from), io.SeekStart); err != nil {
				r.Fatal(err)
			}
			got := make([]byte, n)
			if _, err := io.ReadFull(iotest.HalfReader(reader), got); err != nil || !bytes.Equal(got, want.Bytes()[from:from+n]) {
				r.Fatalf("from %d, %d bytes differ (%v)", from, n, err)
			}
		}
	})
}

func TestTarReaderShortObject(t *testing.T) {
	whole := file("a", "four")
	r, err := NewTarReader(tree(whole), bag{whole.Digest: "tw"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("an object that is cut short gives %v", err)
	}
}
