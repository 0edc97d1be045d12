package image

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// WriteTar writes t as the uncompressed tar of an OCI layer. The bytes depend on
// t alone: entries in t's order, the PAX format (with a PAX record only for what
// ustar cannot say), whole seconds, no user or group names, no devices, no links
// between files. Every file's bytes are checked against its digest.
func WriteTar(w io.Writer, t Tree, o Opener) error {
	if err := t.Validate(); err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, e := range t.Entries {
		if err := tw.WriteHeader(e.header()); err != nil {
			return fmt.Errorf("pack %s: %w", e.Path, err)
		}
		if e.Type == File && e.Size > 0 {
			if err := e.copyTo(tw, o); err != nil {
				return err
			}
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// LayerDigest is the digest and size of what [WriteTar] writes: the layer's
// digest and, as it is not compressed, its DiffID.
func LayerDigest(t Tree, o Opener) (digest.Digest, int64, error) {
	c := counter{h: sha256.New()}
	if err := WriteTar(&c, t, o); err != nil {
		return "", 0, err
	}
	return digest.NewDigest(digest.SHA256, c.h), c.n, nil
}

func (e Entry) header() *tar.Header {
	h := &tar.Header{
		Format:  tar.FormatPAX,
		Name:    e.Path,
		Mode:    int64(e.Mode),
		Uid:     e.UID,
		Gid:     e.GID,
		ModTime: time.Unix(e.MTime, 0),
	}
	switch e.Type {
	case Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case File:
		h.Typeflag = tar.TypeReg
		h.Size = e.Size
	case Symlink:
		h.Typeflag = tar.TypeSymlink
		h.Linkname = e.Link
	}
	if len(e.Xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(e.Xattrs))
		for name, value := range e.Xattrs {
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
	}
	return h
}

// copyTo writes a file's bytes and refuses those that are not its digest's.
func (e Entry) copyTo(w io.Writer, o Opener) (err error) {
	r, err := o.Open(e.Digest)
	if err != nil {
		return fmt.Errorf("pack %s: %w", e.Path, err)
	}
	defer func() {
		if cerr := r.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("pack %s: %w", e.Path, cerr)
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, e.Size))
	if err != nil {
		return fmt.Errorf("pack %s: %w", e.Path, err)
	}
	if got := digest.NewDigest(digest.SHA256, h); n != e.Size || got != e.Digest {
		return fault.New(fault.Refused, "the bytes of %q are not those of its digest", e.Path).
			Detail(fmt.Sprintf("expected: %s, %d bytes", e.Digest, e.Size), fmt.Sprintf("got:      %s, %d bytes", got, n))
	}
	return nil
}

// counter hashes and counts what is written to it.
type counter struct {
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.h.Write(p)
}
