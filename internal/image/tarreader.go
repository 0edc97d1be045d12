package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// tarBlock is the size, in bytes, that tar pads everything to. Two empty blocks end
// an archive.
const tarBlock = 512

// TarReader reads what [WriteTar] writes, from any offset on: only the objects in the
// part that is read are opened. Their bytes are not compared with their digests. It is
// not safe for concurrent use.
type TarReader struct {
	tree    Tree
	objects Opener
	starts  []int64 // of each entry's header; the last one is the end's
	at      int64   // where the next Read begins

	entry  int    // the entry that header and file are of; -1: none
	header []byte //
	file   io.ReadCloser
	pos    int64 // in file
}

// NewTarReader makes the index of offsets that reading needs. It opens no objects.
func NewTarReader(t Tree, o Opener) (*TarReader, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	r := &TarReader{tree: t, objects: o, starts: make([]int64, 0, len(t.Entries)+1), entry: -1}
	var end int64
	for _, e := range t.Entries {
		r.starts = append(r.starts, end)
		h, err := e.headerBytes()
		if err != nil {
			return nil, err
		}
		end += int64(len(h)) + padded(e.Size) // only files have a size
	}
	r.starts = append(r.starts, end)
	return r, nil
}

// Size is the length of the tar, bytes.
func (r *TarReader) Size() int64 { return r.starts[len(r.starts)-1] + 2*tarBlock }

// Close ends the use of an object that is half read.
func (r *TarReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Seek implements io.Seeker.
func (r *TarReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.Size()
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of a tar")
	}
	r.at = offset
	return offset, nil
}

// Read implements io.Reader. It fails when an object has too few bytes.
func (r *TarReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	end := len(r.tree.Entries)
	if r.at >= r.starts[end] {
		return r.zeros(p, r.Size()-r.at)
	}
	if err := r.turnTo(sort.Search(end, func(i int) bool { return r.starts[i+1] > r.at })); err != nil {
		return 0, err
	}
	e, off := r.tree.Entries[r.entry], r.at-r.starts[r.entry]
	if off < int64(len(r.header)) {
		n := copy(p, r.header[off:])
		r.at += int64(n)
		return n, nil
	}
	if off -= int64(len(r.header)); off < e.Size {
		n, err := r.read(p[:min(int64(len(p)), e.Size-off)], e, off)
		r.at += int64(n)
		return n, err
	}
	return r.zeros(p, padded(e.Size)-off)
}

// turnTo gets an entry's header ready.
func (r *TarReader) turnTo(entry int) (err error) {
	if r.entry == entry {
		return nil
	}
	if err := r.Close(); err != nil {
		return err
	}
	r.entry = entry
	r.header, err = r.tree.Entries[entry].headerBytes()
	return err
}

// read reads a file's bytes at an offset.
func (r *TarReader) read(p []byte, e Entry, off int64) (int, error) {
	if r.file == nil || r.pos != off {
		if err := r.open(e, off); err != nil {
			return 0, fmt.Errorf("pack %s: %w", e.Path, err)
		}
	}
	n, err := r.file.Read(p)
	r.pos += int64(n)
	if errors.Is(err, io.EOF) {
		if err = nil; n == 0 {
			err = fault.New(fault.Refused, "the object of %q has too few bytes", e.Path)
		}
	}
	return n, err
}

func (r *TarReader) open(e Entry, off int64) (err error) {
	if err := r.Close(); err != nil {
		return err
	}
	if r.file, err = r.objects.Open(e.Digest); err != nil {
		return err
	}
	r.pos = off
	if s, ok := r.file.(io.Seeker); ok {
		_, err = s.Seek(off, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r.file, off)
	}
	return err
}

// zeros reads the first of n empty bytes.
func (r *TarReader) zeros(p []byte, n int64) (int, error) {
	if n <= 0 {
		return 0, io.EOF
	}
	n = min(n, int64(len(p)))
	clear(p[:n])
	r.at += n
	return int(n), nil
}

// headerBytes is an entry's header as it stands in the tar. It depends on nothing
// that comes before.
func (e Entry) headerBytes() ([]byte, error) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(e.header()); err != nil {
		return nil, fmt.Errorf("pack %s: %w", e.Path, err)
	}
	return b.Bytes(), nil
}

func padded(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }
