package main

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// artifacts is engine.Artifacts over the object store. A tree that was
// found complete stays so until garbage is collected.
type artifacts struct {
	objects *object.Store
	secrets func(release.Spec) error // whether the versions that a spec names can be had

	looking  sync.Mutex // held for the length of a look into a tree: two of the same would find the same
	mu       sync.Mutex
	complete map[digest.Digest]bool // seals, and trees of layers
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
	if err := a.root(ctx, spec); err != nil {
		return err
	}
	if err := a.tree(ctx, spec.Settings); err != nil {
		return err
	}
	return a.secrets(spec)
}

// root looks for the files of the root file system. What was sealed here was merged
// from the artifact's layers, of which an earlier release may have had some.
func (a *artifacts) root(ctx context.Context, spec release.Spec) error {
	sealed, err := a.objects.Ref(build.RefArtifact, spec.Artifact.Encoded())
	if err == nil && sealed == spec.Tree && a.objects.Has(sealed) && a.layers(spec.Artifact) == nil {
		return nil
	}
	return a.tree(ctx, spec.Tree)
}

// layers looks for the files of an artifact's layers.
func (a *artifacts) layers(artifact digest.Digest) error {
	a.looking.Lock()
	defer a.looking.Unlock()
	s := seals{a.objects}
	layers, err := s.layers(artifact)
	if err != nil {
		return err
	}
	for _, l := range layers {
		if a.known(l.Tree) {
			continue
		}
		t, err := s.layer(l)
		if err != nil {
			return err
		}
		if err := a.hold(l.Tree, t); err != nil {
			return err
		}
	}
	return nil
}

func (a *artifacts) known(tree digest.Digest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.complete[tree]
}

func (a *artifacts) tree(ctx context.Context, d digest.Digest) error {
	a.looking.Lock()
	defer a.looking.Unlock()
	if a.known(d) {
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
	return a.hold(d, t)
}

// hold looks for the files of a tree, and remembers that they are there under the
// tree's name.
func (a *artifacts) hold(name digest.Digest, t image.Tree) error {
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
	a.complete[name] = true
	return nil
}

func missing(what string, d digest.Digest) error {
	return fault.New(fault.Refused, "%s (%s) is not in the object store", what, d).
		Mend("build the release again from its commit:  ashlar deploy")
}
