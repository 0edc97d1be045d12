package inflate_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/ashlar-infra/ashlar/internal/inflate"
)

// packed compresses n zero bytes.
func packed(t *testing.T, ext string, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if ext == ".zst" {
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.CopyN(w, zeros{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBombsEndEarly makes sure that the ratio is what stops a bomb, not its end.
func TestBombsEndEarly(t *testing.T) {
	for _, ext := range []string{".gz", ".zst"} {
		bomb := packed(t, ext, 400<<20)
		if got := inflate.Sniff(bomb); got != ext {
			t.Errorf("%s is taken for %q", ext, got)
		}
		r, err := inflate.Reader(bytes.NewReader(bomb), ext, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if !errors.Is(err, inflate.ErrBomb) || n > inflate.Free+1<<20 {
			t.Errorf("%s: %d bytes came out before %v", ext, n, err)
		}
		t.Attr("refused", "decompression bomb <- 400 MiB of zeros in "+ext)
		r.Close()
	}
}

func TestLimit(t *testing.T) {
	r, err := inflate.Reader(bytes.NewReader(packed(t, ".gz", 1000)), ".gz", 999)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "more than 999 bytes") {
		t.Errorf("got %v", err)
	}
}
