package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxTags is how many tags one push may set.
const maxTags = 64

// putManifest stores a manifest under its digest, and under the tag or tags asked for.
func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, v view, ref string) error {
	if err := reference(ref); err != nil {
		return err
	}
	raw, err := readManifest(w, r)
	if err != nil {
		return err
	}
	named, tags := digest.FromBytes(raw), []string{ref}
	if strings.Contains(ref, ":") {
		named, tags = digest.Digest(ref), r.URL.Query()["tag"]
		if named.Algorithm().FromBytes(raw) != named {
			return &problem{http.StatusBadRequest, "DIGEST_INVALID", "the manifest is not what its digest says"}
		}
	}
	if err := s.mayTag(v, tags, named); err != nil {
		return err
	}
	doc, err := parseDocument(raw, r.Header.Get("Content-Type"))
	if err != nil {
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", "the manifest is not accepted: " + err.Error()}
	}
	if err := s.keep(r.Context(), v, named, tags, raw, doc); err != nil {
		return err
	}
	w.Header().Set("Location", "/v2/"+v.pushed.name+"/manifests/"+named.String())
	w.Header().Set("Docker-Content-Digest", named.String())
	if doc.Subject != nil {
		w.Header().Set("OCI-Subject", doc.Subject.Digest.String())
	}
	if strings.Contains(ref, ":") {
		for _, tag := range tags {
			w.Header().Add("OCI-Tag", tag)
		}
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func readManifest(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxManifest {
		return nil, &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a manifest may have %d bytes", maxManifest)}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &problem{http.StatusBadRequest, "SIZE_INVALID", "fewer bytes came than were announced"}
	}
	return raw, err
}

// mayTag refuses tags that are none, and those by which Ashlar names its releases:
// numbers and digests.
func (s *Server) mayTag(v view, tags []string, named digest.Digest) error {
	if len(tags) > maxTags {
		return &problem{http.StatusRequestURITooLong, "SIZE_INVALID", fmt.Sprintf("one push may set %d tags", maxTags)}
	}
	for _, tag := range tags {
		if !validTag(tag) {
			return &problem{http.StatusBadRequest, "MANIFEST_INVALID", "this is not a tag"}
		}
		if v.tagged[tag] != named && v.reserved(tag) {
			return &problem{http.StatusForbidden, "DENIED", "in this repository the tag " + tag + " is for releases of Ashlar's"}
		}
	}
	return nil
}

// reserved says whether a tag is or could be a release's.
func (v view) reserved(tag string) bool {
	if v.tagged == nil {
		return false
	}
	_, taken := v.tagged[tag]
	return taken || strings.Trim(tag, "0123456789") == "" || len(tag) == 64 && strings.Trim(tag, "0123456789abcdef") == ""
}

// keep makes a manifest durable, with its references, if all that it needs is here.
func (s *Server) keep(ctx context.Context, v view, named digest.Digest, tags []string, raw []byte, doc document) error {
	unlock, err := s.objects.Share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := v.complete(doc); err != nil {
		return err
	}
	batch := s.objects.NewBatch()
	defer batch.Discard()
	obj, err := batch.PutBytes(raw)
	if err != nil {
		return err
	}
	if err := v.pushed.stageName(batch); err != nil {
		return err
	}
	if err := batch.SetRef(kindManifests+v.pushed.id, refName(named), obj); err != nil {
		return err
	}
	if doc.Subject != nil {
		if err := v.pushed.stageSubject(batch, doc.Subject.Digest, named, obj); err != nil {
			return err
		}
	}
	for _, tag := range tags {
		if err := batch.SetRef(kindTags+v.pushed.id, tag, obj); err != nil {
			return err
		}
	}
	return batch.Commit()
}

// complete fails when something that a manifest names is not in the repository, or
// has another size than it says.
func (v view) complete(doc document) error {
	for _, x := range doc.Blobs {
		b, err := v.blob(x.Digest)
		if err := here(x, b.size, err); err != nil {
			return err
		}
	}
	for _, x := range doc.Manifests {
		obj, _, err := v.manifest(string(x.Digest))
		if errors.Is(err, fs.ErrNotExist) { // an index may name blobs too
			b, err := v.blob(x.Digest)
			if err := here(x, b.size, err); err != nil {
				return err
			}
			continue
		}
		if err := here(x, sizeOf(v.objects, obj), err); err != nil {
			return err
		}
	}
	return nil
}

func here(x ocispec.Descriptor, size int64, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &problem{http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "the manifest names " + x.Digest.String() + ", which is not in this repository"}
	case err != nil:
		return err
	case size != x.Size:
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", fmt.Sprintf("the manifest says that %s has %d bytes, it has %d", x.Digest, x.Size, size)}
	}
	return nil
}
