package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// What is remembered of manifests that refer to something.
const (
	maxRemembered = 4096
	smallDocument = 8 << 10 // bytes; a larger one is read anew
)

// attached reads manifests that refer to something, and remembers the small ones.
type attached struct {
	objects *object.Store
	mu      sync.Mutex
	parsed  map[digest.Digest]document
}

func (a *attached) document(d digest.Digest) (document, error) {
	a.mu.Lock()
	doc, ok := a.parsed[d]
	a.mu.Unlock()
	if ok {
		return doc, nil
	}
	raw, err := a.objects.ReadAll(d, maxManifest)
	if err != nil {
		return doc, err
	}
	if doc, err = parseDocument(raw, ""); err != nil || doc.Size > smallDocument {
		return doc, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.parsed) >= maxRemembered {
		clear(a.parsed)
	}
	a.parsed[d] = doc
	return doc, nil
}

// names says whether a document has a blob.
func (d document) names(blob digest.Digest) bool {
	return slices.ContainsFunc(d.Blobs, func(x ocispec.Descriptor) bool { return x.Digest == blob })
}

// isStatement says whether a manifest stands beside one that is here.
func (v view) isStatement(d digest.Digest) bool {
	found := false
	v.statements(func(manifest digest.Digest) bool {
		found = manifest == d
		return !found
	})
	return found
}

// statements calls fn for the manifests beside those that are here, until it says
// false. What cannot be listed is as if it were not there.
func (v view) statements(fn func(manifest digest.Digest) bool) {
	names, err := v.objects.RefNames(referrer.Kind)
	if err != nil {
		return
	}
	here := map[digest.Digest]bool{}
	for _, name := range names {
		subject := referrer.Subject(name)
		if subject == "" {
			continue
		}
		has, seen := here[subject]
		if !seen {
			has = v.hasManifest(subject)
			here[subject] = has
		}
		if has && !fn(statementOf(name)) {
			return
		}
	}
}

// statementOf is the manifest that a reference of package referrer leads to.
func statementOf(name string) digest.Digest {
	_, manifest, _ := strings.Cut(name, "-")
	return digest.NewDigestFromEncoded(digest.SHA256, manifest)
}

// candidates gives the objects that may be manifests which refer to a subject, by the
// digests they are named by.
func (v view) candidates(subject digest.Digest) (map[digest.Digest]digest.Digest, error) {
	all, err := v.pushed.subjects(subject)
	if err != nil || subject.Algorithm() != digest.SHA256 || !v.hasManifest(subject) {
		return all, err
	}
	names, err := v.objects.RefNames(referrer.Kind)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if referrer.Subject(name) == subject {
			all[statementOf(name)] = statementOf(name)
		}
	}
	return all, nil
}

// referrers answers with what refers to a subject, sorted by digest, in parts that
// are no larger than a manifest may be.
func (s *Server) referrers(w http.ResponseWriter, r *http.Request, v view, ref string) error {
	subject, ok := parseDigest(ref)
	if !ok {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "this is not a SHA-256 or SHA-512 digest"}
	}
	all, err := v.candidates(subject)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	kind, last := q.Get("artifactType"), digest.Digest(q.Get("last"))
	if kind != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	list, size := []ocispec.Descriptor{}, 0
	for _, named := range slices.Sorted(maps.Keys(all)) {
		if named <= last {
			continue
		}
		doc, err := s.attached.document(all[named])
		if errors.Is(err, fs.ErrNotExist) {
			continue // collected meanwhile
		}
		if err != nil {
			return err
		}
		if doc.Subject == nil || doc.Subject.Digest != subject || kind != "" && doc.ArtifactType != kind {
			continue
		}
		x := doc.descriptor(named)
		raw, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if size += len(raw); size > maxManifest && len(list) > 0 {
			next := url.Values{"last": {string(list[len(list)-1].Digest)}}
			if kind != "" {
				next.Set("artifactType", kind)
			}
			w.Header().Set("Link", "<"+r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
			break
		}
		list = append(list, x)
	}
	return writeJSON(w, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list,
	})
}
