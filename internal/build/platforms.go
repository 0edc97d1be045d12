package build

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// refIndex is the kind of reference that keeps the index of a component's artifacts.
const refIndex = "index"

// archs are the architectures that the lock has entries for: those of the definition
// and that which is built for, in order.
func (b *Builder) archs(def *definition.Definition) []string {
	all := append(slices.Clone(def.Platforms), b.arch())
	slices.Sort(all)
	return slices.Compact(all)
}

// forArch is b for another architecture.
func (b *Builder) forArch(arch string) *Builder {
	other := *b
	other.Arch = arch
	other.Progress = func(e Event) {
		e.Component += " " + arch
		b.tell(e)
	}
	return &other
}

// Index is the artifacts of one component for all platforms.
type Index struct {
	Digest    digest.Digest // of the OCI index
	Platforms []Made        // sorted by architecture
}

// Made is the artifact for one of them.
type Made struct {
	Arch             string
	Manifest, Ledger digest.Digest
}

// Indexes builds every component for the other platforms of the definition too, and
// gives the OCI index of each, by component; nil when there is no other. The lock has
// been prepared, and the release built for this machine's.
func Indexes(ctx context.Context, b *Builder, def *definition.Definition, rel release.Release) (map[string]Index, error) {
	archs := b.archs(def)
	if len(archs) < 2 {
		return nil, nil
	}
	all := map[string]Index{}
	add := func(name string, m Made) { all[name] = Index{Platforms: append(all[name].Platforms, m)} }
	for _, arch := range archs {
		if arch == b.arch() {
			for name, c := range componentsOf(rel) {
				add(name, Made{arch, c.Spec.Artifact, c.Ledger})
			}
			continue
		}
		artifacts, err := Components(ctx, b.forArch(arch), def.Components)
		if err != nil {
			return nil, err
		}
		for _, a := range artifacts {
			add(a.Component, Made{arch, a.Manifest, a.Ledger})
		}
	}
	return all, b.keepIndexes(all)
}

// componentsOf are those of a release; what was built of them is the same in every
// environment.
func componentsOf(rel release.Release) map[string]release.Component {
	out := map[string]release.Component{}
	for _, env := range rel.Environments {
		maps.Copy(out, env.Components)
	}
	return out
}

// keepIndexes stores the indexes, and enters their digests.
func (b *Builder) keepIndexes(all map[string]Index) error {
	batch := b.Objects.NewBatch()
	defer batch.Discard()
	for name, index := range all {
		var platforms []image.Platform
		for _, m := range index.Platforms {
			raw, err := b.Objects.ReadAll(m.Manifest, image.ManifestLimit)
			if err != nil {
				return err
			}
			platforms = append(platforms, image.Platform{Architecture: m.Arch, Manifest: m.Manifest, Size: int64(len(raw))})
		}
		raw, err := image.AssembleIndex(platforms)
		if err != nil {
			return err
		}
		if index.Digest, err = batch.PutBytes(raw); err != nil {
			return err
		}
		// Always: IndexOf goes by its time.
		if err := batch.SetRef(refIndex, index.Digest.Encoded(), index.Digest); err != nil {
			return err
		}
		all[name] = index
	}
	return batch.Commit()
}

// IndexOf gives the index that an artifact is in; of several that which was built last.
// It is empty when there is none.
func IndexOf(objects *object.Store, artifact digest.Digest) (digest.Digest, error) {
	refs, err := objects.Refs(refIndex)
	if err != nil {
		return "", err
	}
	var newest digest.Digest
	var built time.Time
	for name, d := range refs {
		raw, err := objects.ReadAll(d, image.ManifestLimit)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was collected
		}
		if err != nil {
			return "", err
		}
		platforms, _ := image.ParseIndex(raw)
		if !slices.ContainsFunc(platforms, func(p image.Platform) bool { return p.Manifest == artifact }) {
			continue
		}
		at, err := objects.RefTime(refIndex, name)
		if err != nil {
			return "", err
		}
		if newest == "" || at.After(built) {
			newest, built = d, at
		}
	}
	return newest, nil
}
