package registry

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// verifiedReader compares what is read from the start to the end with its digest, and
// fails before the last bytes are given away if they differ. Whoever reads a part has
// to compare by himself.
type verifiedReader struct {
	r      io.ReadSeekCloser
	want   digest.Digest
	size   int64
	h      hash.Hash
	hashed int64 // bytes from the start that went into h
	at     int64
}

func verified(r io.ReadSeekCloser, want digest.Digest, size int64) *verifiedReader {
	return &verifiedReader{r: r, want: want, size: size, h: sha256.New()}
}

// Read implements io.Reader.
func (v *verifiedReader) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if v.at == v.hashed {
		v.h.Write(p[:n])
		v.hashed += int64(n)
		if over := v.hashed > v.size; over || n > 0 && v.hashed == v.size || errors.Is(err, io.EOF) {
			if got := digest.NewDigest(digest.SHA256, v.h); over || got != v.want {
				return 0, fault.New(fault.Refused, "what is stored as %s is damaged: it is %s", v.want, got).
					Mend("compare the store with its digests:  ashlar seal verify")
			}
		}
	}
	v.at += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (v *verifiedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := v.r.Seek(offset, whence)
	v.at = at
	return at, err
}

// Close implements io.Closer.
func (v *verifiedReader) Close() error { return v.r.Close() }
