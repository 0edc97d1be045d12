package main

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// artifacts is engine.Artifacts over the object store. A sealed tree that was
// found complete stays so until garbage is collected.
type artifacts struct {
	objects *object.Store
	secrets func(release.Spec) error // whether the versions that a spec names can be had

	looking  sync.Mutex // held for the length of a look into a tree: two of the same would find the same
	mu       sync.Mutex
	complete map[digest.Digest]bool // seals
}

func newArtifacts(objects *object.Store, secrets func(release.Spec) error) *artifacts {
	return &artifacts{objects: objects, secrets: secrets, complete: map[digest.Digest]bool{}}
}

// forget is called when objects may have been removed.
func (a *artifacts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.complete)
}

// Check says whether every byte of the spec, and every secret, is on hand.
func (a *artifacts) Check(ctx context.Context, spec release.Spec) error {
	if !a.objects.Has(spec.Artifact) {
		return missing("the manifest", spec.Artifact)
	}
	for _, d := range []digest.Digest{spec.Tree, spec.Settings} {
		if err := a.tree(ctx, d); err != nil {
			return err
		}
	}
	return a.secrets(spec)
}

func (a *artifacts) tree(ctx context.Context, d digest.Digest) error {
	a.looking.Lock()
	defer a.looking.Unlock()
	a.mu.Lock()
	done := a.complete[d]
	a.mu.Unlock()
	if done {
		return nil
	}
	if !a.objects.Has(d) {
		return missing("the sealed tree", d)
	}
	t, err := seal.Read(a.objects, d)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	files, paths := []digest.Digest(nil), map[digest.Digest]string{}
	for _, e := range t.Entries {
		if e.Digest != "" && e.Size > 0 {
			files = append(files, e.Digest)
			paths[e.Digest] = e.Path
		}
	}
	if lost := a.objects.Missing(files); len(lost) > 0 {
		return missing("the file /"+paths[lost[0]], lost[0])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.complete[d] = true
	return nil
}

func missing(what string, d digest.Digest) error {
	return fault.New(fault.Refused, "%s (%s) is not in the object store", what, d).
		Mend("build the release again from its commit:  ashlar deploy")
}
