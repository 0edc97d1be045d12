package registry

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// view is one repository as a client sees it: what was pushed, what Ashlar built under
// that name, and the statements beside either.
type view struct {
	objects  *object.Store
	pushed   repository
	tagged   map[string]digest.Digest // manifests that Ashlar built, by tag
	built    *built
	attached *attached
}

func (s *Server) view(ctx context.Context, name string) (view, error) {
	all, err := s.catalog.Artifacts(ctx)
	if err != nil {
		return view{}, err
	}
	return view{s.objects, openRepository(s.objects, name), all[name], s.built, s.attached}, nil
}

func (v view) exists() bool { return v.tagged != nil || v.pushed.exists() }

// isBuilt says whether Ashlar built a manifest of that name here.
func (v view) isBuilt(d digest.Digest) bool {
	for _, m := range v.tagged {
		if m == d {
			return true
		}
	}
	return false
}

// manifest finds what a tag or digest names: the object, and the digest to tell.
func (v view) manifest(ref string) (obj, named digest.Digest, err error) {
	if m, ok := v.tagged[ref]; ok {
		return m, m, nil
	}
	if d := digest.Digest(ref); v.isBuilt(d) {
		return d, d, nil
	}
	obj, named, ok, err := v.pushed.manifest(ref)
	if err != nil || ok {
		return obj, named, err
	}
	if d := digest.Digest(ref); strings.Contains(ref, ":") && v.isStatement(d) {
		return d, d, nil
	}
	return "", "", fs.ErrNotExist
}

// hasManifest says whether a manifest was built or pushed here.
func (v view) hasManifest(d digest.Digest) bool {
	if v.isBuilt(d) {
		return true
	}
	_, ok, err := v.pushed.lookup(kindManifests, d)
	return ok && err == nil
}

// blob finds a blob.
func (v view) blob(d digest.Digest) (blob, error) {
	obj, ok, err := v.pushed.lookup(kindBlobs, d)
	if err != nil {
		return blob{}, err
	}
	if ok && v.objects.Has(obj) {
		return stored(v.objects, d, obj), nil
	}
	for _, m := range slices.Compact(slices.Sorted(maps.Values(v.tagged))) {
		b, ok, err := v.built.blob(m, d)
		if err != nil || ok {
			return b, err
		}
	}
	found := false
	v.statements(func(manifest digest.Digest) bool {
		doc, err := v.attached.document(manifest)
		found = err == nil && doc.names(d)
		return !found
	})
	if !found || !v.objects.Has(d) {
		return blob{}, fs.ErrNotExist
	}
	return stored(v.objects, d, d), nil
}

// tags lists the tags in bytewise order.
func (v view) tags() ([]string, error) {
	pushed, err := v.pushed.tags()
	if err != nil {
		return nil, err
	}
	all := slices.Collect(maps.Keys(v.tagged))
	for tag := range pushed {
		if _, ok := v.tagged[tag]; !ok {
			all = append(all, tag)
		}
	}
	slices.Sort(all)
	return all, nil
}
