package oci

import (
	"archive/tar"
	"bytes"
	"io"
	"strconv"
	"strings"
)

// headers hands the bytes of a tar on to a tar.Reader, and looks at the headers itself:
// where a name holds a NUL, the standard library cuts the name there and does not say
// so. Somebody else's program might go on, and see another file.
//
// https://www.gnu.org/software/tar/manual/html_node/Standard.html
type headers struct {
	r       io.Reader
	read    int64 // bytes so far
	looking bool  // at what is read now
	seen    []byte
}

const (
	tarBlock   = 512
	maxHeaders = 8 << 20 // bytes of all headers of one member
)

func (h *headers) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.looking {
		h.seen = append(h.seen, p[:n]...)
		if len(h.seen) > maxHeaders {
			return 0, refused("an entry has more than %d bytes of headers", maxHeaders)
		}
	}
	h.read += int64(n)
	return n, err
}

// next is t.Next of the tar.Reader that reads from h.
func (h *headers) next(t *tar.Reader) (*tar.Header, error) {
	if _, err := io.Copy(io.Discard, t); err != nil { // what is left of the member before
		return nil, err
	}
	padding := int(-h.read & (tarBlock - 1)) // after it, up to a whole block
	h.looking, h.seen = true, h.seen[:0]
	member, err := t.Next()
	h.looking = false
	if err != nil {
		return nil, err
	}
	return member, checkHeaders(h.seen[min(padding, len(h.seen)):])
}

// checkHeaders looks at the headers of one member: its own, and before it those that
// hold a long name, a long link or PAX records.
func checkHeaders(b []byte) error {
	for len(b) >= tarBlock {
		block, typ := b[:tarBlock], b[156]
		b = b[tarBlock:]
		switch typ {
		case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			size, err := strconv.ParseInt("0"+strings.Trim(string(block[124:136]), " \x00"), 8, 64)
			if err != nil || size < 0 || size > int64(len(b)) {
				return refused("a header has an impossible size")
			}
			if (typ == tar.TypeGNULongName || typ == tar.TypeGNULongLink) && cut(b[:size]) {
				return refused("a name holds NUL: %s", clip(string(b[:size])))
			}
			b = b[min(int64(len(b)), (size+tarBlock-1)/tarBlock*tarBlock):]
		default:
			for _, field := range []struct{ from, to int }{{0, 100}, {157, 257}} { // name, link
				if text := block[field.from:field.to]; cut(text) {
					return refused("a name holds NUL: %s", clip(string(text)))
				}
			}
			return nil
		}
	}
	return nil
}

// cut says that there is something after a NUL.
func cut(text []byte) bool {
	_, rest, _ := bytes.Cut(text, []byte{0})
	return len(bytes.Trim(rest, "\x00")) > 0
}
