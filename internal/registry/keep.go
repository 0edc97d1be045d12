package registry

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// keepFresh is how long what was pushed stays without a tag: a client pushes blobs
// first and the manifest that needs them last.
const keepFresh = 24 * time.Hour

// Ref is a reference in the object store.
type Ref struct{ Kind, Name string }

// Kept is what collecting garbage leaves of a registry.
type Kept struct {
	Objects []digest.Digest // that stay, each as it is
	Gone    []Ref           // references that go
}

// Keep judges everything that was pushed. A manifest stays that has a tag, is named by
// an index that stays, refers to something that is stored, or was pushed in the last
// day; a blob that such a manifest names, or that was pushed in the last day. A
// repository without either goes. Nothing may be pushed meanwhile.
func Keep(objects *object.Store, now time.Time) (Kept, error) {
	refs, err := objects.Refs(kindRepository)
	if err != nil {
		return Kept{}, err
	}
	var k Kept
	for id, name := range refs {
		j := judge{repository: repository{objects, "", id}, now: now, live: map[string]bool{}}
		if err := j.judge(); err != nil {
			return Kept{}, err
		}
		k.Objects = append(k.Objects, j.kept...)
		k.Gone = append(k.Gone, j.gone...)
		if len(j.kept) == 0 {
			k.Gone = append(k.Gone, Ref{kindRepository, id})
			continue
		}
		k.Objects = append(k.Objects, name)
	}
	return k, nil
}

// judge is one repository that is judged.
type judge struct {
	repository
	now       time.Time
	manifests map[string]digest.Digest // by the name of the reference
	docs      map[string]document      // what of manifests has to be known
	live      map[string]bool          // names of manifests and blobs that stay
	kept      []digest.Digest
	gone      []Ref
}

func (j *judge) judge() (err error) {
	if j.manifests, err = j.objects.Refs(kindManifests + j.id); err != nil {
		return err
	}
	j.docs = map[string]document{}
	for name, obj := range j.manifests {
		raw, err := j.objects.ReadAll(obj, maxManifest)
		if errors.Is(err, fs.ErrNotExist) {
			delete(j.manifests, name) // it leads nowhere
			j.gone = append(j.gone, Ref{kindManifests + j.id, name})
			continue
		}
		if err != nil {
			return err
		}
		doc, err := parseDocument(raw, "")
		if err != nil {
			return err
		}
		j.docs[name] = document{Subject: doc.Subject, Blobs: doc.Blobs, Manifests: doc.Manifests}
	}
	if err := j.roots(); err != nil {
		return err
	}
	j.spread()
	for name, obj := range j.manifests {
		j.sort(kindManifests, name, obj, j.live[name])
	}
	return j.rest()
}

// roots marks what stays for its own sake.
func (j *judge) roots() error {
	tags, err := j.tags()
	if err != nil {
		return err
	}
	tagged := map[digest.Digest]bool{}
	for _, obj := range tags {
		tagged[obj] = true
	}
	for name, obj := range j.manifests {
		fresh, err := j.fresh(kindManifests, name)
		if err != nil {
			return err
		}
		if fresh || tagged[obj] {
			j.live[name] = true
		}
	}
	return nil
}

// spread marks what stays because of what stays, until that adds nothing.
func (j *judge) spread() {
	for again := true; again; {
		again = false
		for name, doc := range j.docs {
			if !j.live[name] && doc.Subject != nil && j.stays(doc.Subject.Digest) {
				j.live[name], again = true, true
			}
			if !j.live[name] {
				continue
			}
			for _, x := range doc.Manifests {
				if child := refName(x.Digest); !j.live[child] {
					j.live[child], again = true, true
				}
			}
			for _, x := range doc.Blobs {
				j.live[refName(x.Digest)] = true
			}
		}
	}
}

// stays says whether a subject stays: one of the repository if it is marked, another
// one, such as an artifact that Ashlar built, as long as it is stored.
func (j *judge) stays(subject digest.Digest) bool {
	if _, here := j.manifests[refName(subject)]; here {
		return j.live[refName(subject)]
	}
	return j.objects.Has(subject)
}

// rest judges the other references.
func (j *judge) rest() error {
	for _, kind := range []string{kindBlobs, kindTags, kindSubjects} {
		refs, err := j.objects.Refs(kind + j.id)
		if err != nil {
			return err
		}
		for name, obj := range refs {
			stays := j.objects.Has(obj)
			switch kind {
			case kindBlobs:
				fresh, err := j.fresh(kind, name)
				if err != nil {
					return err
				}
				stays = stays && (fresh || j.live[name])
			case kindSubjects:
				_, manifest, _ := strings.Cut(name, ".")
				stays = j.live[manifest]
			}
			j.sort(kind, name, obj, stays)
		}
	}
	return nil
}

func (j *judge) sort(kind, name string, obj digest.Digest, stays bool) {
	if stays {
		j.kept = append(j.kept, obj)
		return
	}
	j.gone = append(j.gone, Ref{kind + j.id, name})
}

// fresh says whether a reference was set in the last day.
func (j *judge) fresh(kind, name string) (bool, error) {
	set, err := j.objects.RefTime(kind+j.id, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return j.now.Sub(set) < keepFresh, err
}
