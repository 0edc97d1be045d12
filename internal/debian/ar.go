package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// arReader reads the members of a Unix archive as deb(5) restricts it: plain
// names of at most 15 characters, no extensions.
type arReader struct {
	r    io.Reader
	left int64 // of the member under way
	pad  bool
}

// arMember is the header of one member.
type arMember struct {
	name string
	size int64
}

const arMagic = "!<arch>\n"

func newAr(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, errors.New("it is not an ar archive")
	}
	return &arReader{r: r}, nil
}

// next skips what is left of the member under way and reads the next header. At
// the end it returns io.EOF; a header or content that is cut short is an error.
func (a *arReader) next() (arMember, error) {
	skip := a.left
	if a.pad {
		skip++
	}
	if n, err := io.CopyN(io.Discard, a.r, skip); err != nil {
		// The padding of the last member may be missing, as GNU ar allows.
		if errors.Is(err, io.EOF) && a.pad && n == skip-1 {
			return arMember{}, io.EOF
		}
		return arMember{}, fmt.Errorf("a member is cut short: %w", noEOF(err))
	}
	a.left, a.pad = 0, false
	header := make([]byte, 60)
	if n, err := io.ReadFull(a.r, header); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return arMember{}, io.EOF
		}
		return arMember{}, fmt.Errorf("a member's header is cut short: %w", noEOF(err))
	}
	if !bytes.Equal(header[58:], []byte("`\n")) {
		return arMember{}, errors.New("a member's header is malformed")
	}
	name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	digits := strings.TrimRight(string(header[48:58]), " ")
	size, err := strconv.ParseUint(digits, 10, 40)
	if err != nil || name == "" {
		return arMember{}, fmt.Errorf("a member's header is malformed: name %s, size %s", clip(name), clip(digits))
	}
	a.left, a.pad = int64(size), size%2 == 1
	return arMember{name: name, size: int64(size)}, nil
}

// Read reads the member under way.
func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if errors.Is(err, io.EOF) && a.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
