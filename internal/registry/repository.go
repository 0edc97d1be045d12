package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// Kinds of references in the object store. Those of one repository are called after
// the SHA-256 of its name, since a name has slashes:
//
//	refs/oci-repository/<hex>         an object that holds the name, as JSON
//	refs/oci-tags-<hex>/<tag>         the manifest
//	refs/oci-manifests-<hex>/<digest> the manifest, by each digest that it was pushed by
//	refs/oci-blobs-<hex>/<digest>     likewise
//	refs/oci-subjects-<hex>/<subject>.<digest>  a manifest that refers to a subject
//
// A digest is written with a dash for its colon. What is named by SHA-512 is stored
// under its SHA-256 like everything, to which the reference leads. A subject is the
// first 32 digits of the SHA-256 of its digest, since names have 255 bytes.
const (
	kindRepository = "oci-repository"
	kindTags       = "oci-tags-"
	kindManifests  = "oci-manifests-"
	kindBlobs      = "oci-blobs-"
	kindSubjects   = "oci-subjects-"
)

// IsKind says whether references of a kind are a registry's: [Keep] judges them.
func IsKind(kind string) bool { return strings.HasPrefix(kind, "oci-") }

// repository is what was pushed under one name.
type repository struct {
	objects *object.Store
	name    string
	id      string
}

func openRepository(objects *object.Store, name string) repository {
	return repository{objects, name, digest.FromString(name).Encoded()}
}

// repositories lists the names of all repositories that something was pushed to.
func repositories(objects *object.Store) ([]string, error) {
	refs, err := objects.Refs(kindRepository)
	if err != nil {
		return nil, err
	}
	var names []string
	for id, d := range refs {
		raw, err := objects.ReadAll(d, 4<<10)
		if err != nil {
			return nil, err
		}
		var name string
		if err := json.Unmarshal(raw, &name); err != nil || digest.FromString(name).Encoded() != id {
			return nil, fmt.Errorf("the repository %s is damaged: it is called %q", id, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// exists says whether something was pushed.
func (r repository) exists() bool {
	_, err := r.objects.Ref(kindRepository, r.id)
	return err == nil
}

// stageName adds the reference that makes a repository to a batch, if it is not there.
func (r repository) stageName(b *object.Batch) error {
	if r.exists() {
		return nil
	}
	raw, err := json.Marshal(r.name)
	if err != nil {
		return err
	}
	d, err := b.PutBytes(raw)
	if err != nil {
		return err
	}
	return b.SetRef(kindRepository, r.id, d)
}

// lookup gives the object that a digest stands for in the repository. It says false
// when there is none.
func (r repository) lookup(kind string, d digest.Digest) (digest.Digest, bool, error) {
	return r.ref(kind, refName(d))
}

func (r repository) ref(kind, name string) (digest.Digest, bool, error) {
	d, err := r.objects.Ref(kind+r.id, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return d, err == nil, err
}

// manifest finds what a tag or digest names. named is the digest that it was pushed by.
func (r repository) manifest(ref string) (stored, named digest.Digest, ok bool, err error) {
	if strings.Contains(ref, ":") {
		named = digest.Digest(ref)
		stored, ok, err = r.lookup(kindManifests, named)
		return stored, named, ok, err
	}
	if stored, ok, err = r.ref(kindTags, ref); err != nil || !ok {
		return "", "", false, err
	}
	if _, ok, err := r.lookup(kindManifests, stored); err != nil || ok {
		return stored, stored, ok, err
	}
	raw, err := r.objects.ReadAll(stored, maxManifest)
	if err != nil {
		return "", "", false, err
	}
	named = digest.SHA512.FromBytes(raw)
	_, ok, err = r.lookup(kindManifests, named)
	return stored, named, ok, err
}

// stageSubject adds the reference by which a manifest is found from its subject.
func (r repository) stageSubject(b *object.Batch, subject, named, stored digest.Digest) error {
	return b.SetRef(kindSubjects+r.id, subjectPrefix(subject)+refName(named), stored)
}

// subjects gives the manifests that refer to a subject, by the digests they were
// pushed by. Whether they do is left to who reads them.
func (r repository) subjects(subject digest.Digest) (map[digest.Digest]digest.Digest, error) {
	prefix := subjectPrefix(subject)
	refs, err := r.objects.RefsOf(kindSubjects+r.id, prefix)
	if err != nil {
		return nil, err
	}
	out := map[digest.Digest]digest.Digest{}
	for name, stored := range refs {
		if d, ok := digestOf(strings.TrimPrefix(name, prefix)); ok {
			out[d] = stored
		}
	}
	return out, nil
}

// tags gives the tags with the objects that they lead to.
func (r repository) tags() (map[string]digest.Digest, error) { return r.objects.Refs(kindTags + r.id) }

// removeTag removes a tag; false when there is none.
func (r repository) removeTag(tag string) (bool, error) {
	if _, ok, err := r.ref(kindTags, tag); err != nil || !ok {
		return false, err
	}
	return true, r.objects.RemoveRef(kindTags+r.id, tag)
}

// removeBlob takes a blob out of the repository; false when it is not in it.
func (r repository) removeBlob(d digest.Digest) (bool, error) {
	if _, ok, err := r.lookup(kindBlobs, d); err != nil || !ok {
		return false, err
	}
	return true, r.objects.RemoveRef(kindBlobs+r.id, refName(d))
}

// removeManifest takes a manifest out of the repository, with the tags that lead to it;
// false when it is not in it.
func (r repository) removeManifest(d digest.Digest) (bool, error) {
	stored, ok, err := r.lookup(kindManifests, d)
	if err != nil || !ok {
		return false, err
	}
	tags, err := r.tags()
	if err != nil {
		return false, err
	}
	for tag, to := range tags {
		if to != stored {
			continue
		}
		if err := r.objects.RemoveRef(kindTags+r.id, tag); err != nil {
			return false, err
		}
	}
	if raw, err := r.objects.ReadAll(stored, maxManifest); err == nil {
		if doc, err := parseDocument(raw, ""); err == nil && doc.Subject != nil {
			if err := r.objects.RemoveRef(kindSubjects+r.id, subjectPrefix(doc.Subject.Digest)+refName(d)); err != nil {
				return false, err
			}
		}
	}
	return true, r.objects.RemoveRef(kindManifests+r.id, refName(d))
}

// refName is a digest as the name of a reference.
func refName(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// digestOf is the digest that refName was given.
func digestOf(name string) (digest.Digest, bool) {
	return parseDigest(strings.Replace(name, "-", ":", 1))
}

func subjectPrefix(subject digest.Digest) string {
	return digest.FromString(string(subject)).Encoded()[:32] + "."
}
