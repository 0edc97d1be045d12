package registry

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ours is the answer to who would remove what Ashlar built.
var ours = &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "Ashlar built this: it stays as long as a release needs it (ashlar gc)"}

// deleteManifest removes a tag, or a manifest with the tags that lead to it. The
// objects go with the next collection of garbage.
func (s *Server) deleteManifest(w http.ResponseWriter, _ *http.Request, v view, ref string) error {
	if err := reference(ref); err != nil {
		return err
	}
	if _, taken := v.tagged[ref]; taken || v.isBuilt(digest.Digest(ref)) {
		return ours
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	remove := v.pushed.removeTag
	if strings.Contains(ref, ":") {
		remove = func(ref string) (bool, error) { return v.pushed.removeManifest(digest.Digest(ref)) }
	}
	removed, err := remove(ref)
	if err != nil {
		return err
	}
	if !removed && strings.Contains(ref, ":") && v.isStatement(digest.Digest(ref)) {
		return ours
	}
	if !removed {
		return &problem{http.StatusNotFound, "MANIFEST_UNKNOWN", "there is no such manifest in this repository"}
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// deleteBlob takes a blob out of a repository in which no manifest needs it.
func (s *Server) deleteBlob(w http.ResponseWriter, _ *http.Request, v view, ref string) error {
	d, ok := parseDigest(ref)
	if !ok {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	needed, err := s.needed(v, d)
	if err != nil {
		return err
	}
	if needed {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "a manifest of this repository needs the blob: delete that first"}
	}
	removed, err := v.pushed.removeBlob(d)
	if err != nil {
		return err
	}
	if !removed {
		if _, err := v.blob(d); err == nil {
			return ours
		}
		return &problem{http.StatusNotFound, "BLOB_UNKNOWN", "there is no such blob in this repository"}
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// needed says whether a manifest that was pushed to a repository names a blob.
func (s *Server) needed(v view, d digest.Digest) (bool, error) {
	refs, err := s.objects.Refs(kindManifests + v.pushed.id)
	if err != nil {
		return false, err
	}
	for _, obj := range refs {
		doc, err := s.attached.document(obj)
		if err != nil {
			return false, err
		}
		if doc.names(d) {
			return true, nil
		}
	}
	return false, nil
}
