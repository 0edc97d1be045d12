package gc

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
)

// form is what kind of bytes an object holds, as far as marking must know.
type form int

const (
	leaf   form = iota // names no other object
	sealed             // an EROFS metadata image
	packed             // an encoded tree
	text               // JSON, which may hold digests
)

// maxRead is the largest object, in bytes, that is read for the digests in it.
const maxRead = 512 << 20

// What objects begin with. EROFS has its magic number 1024 bytes into the image
// (https://docs.kernel.org/filesystems/erofs.html).
const (
	treeMagic   = "ashlar tree "
	erofsOffset = 1024
	erofsMagic  = 0xE0F5E1E2
)

func sniff(o Objects, d digest.Digest) (_ form, err error) {
	r, err := o.Open(d)
	if err != nil {
		return leaf, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	head := make([]byte, erofsOffset+4)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return leaf, err
	}
	head = head[:n]
	switch {
	case n == erofsOffset+4 && binary.LittleEndian.Uint32(head[erofsOffset:]) == erofsMagic:
		return sealed, nil
	case n >= len(treeMagic) && string(head[:len(treeMagic)]) == treeMagic:
		return packed, nil
	case n > 0 && (head[0] == '{' || head[0] == '['):
		return text, nil
	}
	return leaf, nil
}
