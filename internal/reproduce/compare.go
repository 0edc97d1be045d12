package reproduce

import (
	"bufio"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// differences names what is not the same in two artifacts.
func differences(as *object.Store, a Made, bs *object.Store, b Made) ([]Difference, error) {
	if a.Artifact == b.Artifact && a.Seal == b.Seal {
		return []Difference{{What: []string{"the artifact for another platform: build there, or with  platforms:  of it alone"}, Offset: -1}}, nil
	}
	before, err := seal.Read(as, a.Seal)
	if err != nil {
		return nil, err
	}
	now, err := seal.Read(bs, b.Seal)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for _, c := range image.Diff(before, now) {
		d := Difference{Path: "/" + c.Path, What: c.What, Offset: -1}
		switch {
		case c.Kind != image.Changed:
			d.What = []string{string(c.Kind)}
		case c.Old.Type == image.File && c.New.Type == image.File && c.Old.Digest != c.New.Digest:
			if d.Offset, d.Bytes, err = bytesThatDiffer(as, c.Old.Digest, bs, c.New.Digest); err != nil {
				return nil, err
			}
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		out = append(out, Difference{What: []string{"the image's configuration"}, Offset: -1})
	}
	return out, nil
}

// bytesThatDiffer gives the offset of the first byte that is not the same, and how many
// are not, up to the end of the shorter.
func bytesThatDiffer(as image.Opener, a digest.Digest, bs image.Opener, b digest.Digest) (first, count int64, err error) {
	x, err := as.Open(a)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	y, err := bs.Open(b)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, y.Close()) }()
	first = -1
	rx, ry := bufio.NewReaderSize(x, 1<<18), bufio.NewReaderSize(y, 1<<18)
	for at := int64(0); ; at++ {
		cx, ex := rx.ReadByte()
		cy, ey := ry.ReadByte()
		if first < 0 && (cx != cy || (ex == nil) != (ey == nil)) {
			first = at
		}
		if ex != nil || ey != nil {
			if !errors.Is(errors.Join(ex, ey), io.EOF) {
				return 0, 0, errors.Join(ex, ey)
			}
			return first, count, nil
		}
		if cx != cy {
			count++
		}
	}
}
