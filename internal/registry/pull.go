package registry

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// reference reads what stands in place of a tag or digest.
func reference(ref string) error {
	if strings.Contains(ref, ":") {
		if _, ok := parseDigest(ref); !ok {
			return &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
		}
		return nil
	}
	if !validTag(ref) {
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", "this is neither a tag nor a digest"}
	}
	return nil
}

func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, v view, ref string) error {
	if err := reference(ref); err != nil {
		return err
	}
	obj, named, err := v.manifest(ref)
	if errors.Is(err, fs.ErrNotExist) {
		return &problem{http.StatusNotFound, "MANIFEST_UNKNOWN", "there is no such manifest in this repository"}
	}
	if err != nil {
		return err
	}
	raw, err := s.objects.ReadAll(obj, maxManifest)
	if err != nil {
		return err
	}
	doc, err := parseDocument(raw, "")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", doc.MediaType)
	serve(w, r, named, bytes.NewReader(raw))
	return nil
}

func (s *Server) getBlob(w http.ResponseWriter, r *http.Request, v view, ref string) error {
	d, ok := parseDigest(ref)
	if !ok {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
	}
	b, err := v.blob(d)
	if errors.Is(err, fs.ErrNotExist) {
		return &problem{http.StatusNotFound, "BLOB_UNKNOWN", "there is no such blob in this repository"}
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodHead { // nothing has to be opened, or made
		serve(w, r, d, &emptyContent{size: b.size})
		return nil
	}
	content, err := b.open()
	if err != nil {
		return err
	}
	watched := &watchedReader{ReadSeekCloser: content}
	serve(w, r, d, watched)
	return errors.Join(watched.failed, content.Close())
}

// serve answers with content, or with the ranges of it that are asked for.
func serve(w http.ResponseWriter, r *http.Request, named digest.Digest, content interface {
	Read([]byte) (int, error)
	Seek(int64, int) (int64, error)
}) {
	w.Header().Set("Docker-Content-Digest", named.String())
	w.Header().Set("ETag", `"`+named.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, content)
}
