package seal

import (
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/erofs/go-erofs"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

const (
	metacopyAttr = "trusted.overlay.metacopy"
	redirectAttr = "trusted.overlay.redirect"
)

// blockSize is that of the image, whatever the page size of the machine that
// writes it: the bytes must not depend on it.
const blockSize = 4096

// Write writes the metadata image of t. Its bytes depend on t alone.
//
// The image's build time is the commonest modification time in t, because an
// entry of that time takes an inode of 32 bytes instead of 64.
func Write(w io.Writer, t image.Tree) error {
	if err := t.Validate(); err != nil {
		return err
	}
	tfs, err := newTreeFS(t)
	if err != nil {
		return err
	}
	var out memory
	ew := erofs.Create(&out, erofs.WithBlockSize(blockSize), erofs.WithBuildTime(uint64(commonTime(t)), 0))
	if err := ew.CopyFrom(tfs, erofs.MetadataOnly()); err != nil {
		return fmt.Errorf("write metadata image: %w", err)
	}
	if err := ew.Close(); err != nil {
		return fmt.Errorf("write metadata image: %w", err)
	}
	if _, err := w.Write(out.b); err != nil {
		return fmt.Errorf("write metadata image: %w", err)
	}
	return nil
}

// commonTime is the most frequent modification time, the earliest of several.
func commonTime(t image.Tree) int64 {
	count := map[int64]int{}
	for _, e := range t.Entries {
		count[e.MTime]++
	}
	best := t.Entries[0].MTime
	for at, n := range count {
		if n > count[best] || n == count[best] && at < best {
			best = at
		}
	}
	return best
}

// attributes are the extended attributes of e in the image.
func attributes(e image.Entry) (map[string]string, error) {
	if e.Type != image.File || e.Size == 0 {
		return e.Xattrs, nil
	}
	rel, err := object.Rel(e.Digest)
	if err != nil {
		return nil, err
	}
	attrs := make(map[string]string, len(e.Xattrs)+2)
	maps.Copy(attrs, e.Xattrs)
	attrs[metacopyAttr] = ""
	attrs[redirectAttr] = "/" + rel
	return attrs, nil
}

// memory is a file in memory: the image's superblock is written last.
type memory struct {
	b   []byte
	pos int
}

func (m *memory) Write(p []byte) (int, error) {
	n := copy(m.b[m.pos:], p)
	m.b = append(m.b, p[n:]...)
	m.pos += len(p)
	return len(p), nil
}

func (m *memory) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += int64(m.pos)
	case io.SeekEnd:
		offset += int64(len(m.b))
	}
	if offset < 0 || offset > int64(len(m.b)) {
		return 0, errors.New("seek beyond the image")
	}
	m.pos = int(offset)
	return offset, nil
}
