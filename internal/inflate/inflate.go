// Package inflate decompresses what others packed, within bounds: gzip, xz and
// zstd, never more than a limit and never more than a multiple of what was read.
// It knows nothing of what is inside. Start at [Reader].
package inflate

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Bounds of decompression. A bomb is what says little and means much: above
// [Free] bytes, more than maxRatio times of what was read is refused. Debian's
// most compressible real packages stay below 60.
const (
	Free          = 64 << 20
	maxRatio      = 300
	maxDictionary = 256 << 20 // xz -9 needs 64 MiB, zstd --ultra -22 128 MiB
)

// ErrBomb is the error for input that expands beyond measure.
var ErrBomb = errors.New("it expands without measure (a decompression bomb)")

// Reader reads r by a file name's extension ("", ".gz", ".xz", ".zst") and bounds what
// comes out by limit, in bytes, and by ratio. What follows the end of the compressed
// data is an error when it is met.
func Reader(r io.Reader, ext string, limit int64) (io.ReadCloser, error) {
	in := &counter{r: r}
	var out io.Reader
	closer := func() {}
	switch ext {
	case "":
		out = in
	case ".gz":
		z, err := gzip.NewReader(bufio.NewReaderSize(in, 64<<10))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		out = z
	case ".xz":
		z, err := xz.NewReader(bufio.NewReaderSize(in, 64<<10), maxDictionary)
		if err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		out = z
	case ".zst":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		out, closer = z, z.Close
	default:
		return nil, fmt.Errorf("compression %.40q is not known", ext)
	}
	return &bounded{r: out, in: in, limit: limit, close: closer}, nil
}

// Sniff gives the extension that [Reader] takes for data that begins so; "" for what
// no compressor wrote.
func Sniff(head []byte) string {
	for ext, magic := range map[string]string{".gz": "\x1f\x8b\x08", ".xz": "\xfd7zXZ\x00", ".zst": "\x28\xb5\x2f\xfd"} {
		if len(head) >= len(magic) && string(head[:len(magic)]) == magic {
			return ext
		}
	}
	return ""
}

// counter counts the bytes that were read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded refuses to go beyond limit or maxRatio.
type bounded struct {
	r     io.Reader
	in    *counter
	limit int64
	n     int64
	close func()
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if b.n > b.limit {
		return 0, fmt.Errorf("it has more than %d bytes", b.limit)
	}
	if b.n > Free && b.n > maxRatio*b.in.n {
		return 0, ErrBomb
	}
	return n, err
}

func (b *bounded) Close() error { b.close(); return nil }
