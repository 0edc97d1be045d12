package build

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/oci"
)

// inRegistry begins the path of an image in a registry, as skopeo writes it.
const inRegistry = "docker://"

// Puller brings an image from a registry into the object store: manifest,
// configuration and layers as objects, each compared with its digest. named is what the
// reference leads to, which may be an index.
type Puller func(ctx context.Context, reference, arch string) (named, manifest digest.Digest, err error)

var errNoPuller = errors.New("nothing here fetches from registries")

// findImage gives the manifest of an image source, and brings it if it is in a registry.
func (b *Builder) findImage(ctx context.Context, src *definition.ImageSource) (digest.Digest, error) {
	ref, ok := strings.CutPrefix(src.Path, inRegistry)
	if !ok {
		return oci.Find(b.imageRequest(src))
	}
	if src.Tag != "" {
		return "", fault.New(fault.Invalid, "the tag of an image in a registry stands in its path").Mend("write  path: %s:%s", src.Path, src.Tag)
	}
	named, manifest, err := b.pull(ctx, ref)
	if want := digest.Digest(src.Digest); err == nil && want != "" && want != named && want != manifest {
		err = fault.New(fault.Conflict, "%s is %s, not %s", ref, named, want).
			Mend("write  path: %s%s@%s  or correct  digest:", inRegistry, repositoryOf(ref), want)
	}
	return manifest, err
}

func (b *Builder) pull(ctx context.Context, ref string) (named, manifest digest.Digest, err error) {
	if b.Pull == nil {
		return "", "", errNoPuller
	}
	return b.Pull(ctx, ref, b.arch())
}

// havePulled brings the locked image of a registry again, if the store has lost it.
func (b *Builder) havePulled(ctx context.Context, src *definition.ImageSource, manifest digest.Digest) error {
	ref, ok := strings.CutPrefix(src.Path, inRegistry)
	if !ok || b.Objects.Has(manifest) {
		return nil
	}
	_, _, err := b.pull(ctx, repositoryOf(ref)+"@"+manifest.String())
	return err
}

// repositoryOf is a reference without tag and digest.
func repositoryOf(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref
}
