package build

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/image"
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

// Indexes builds every component for the other platforms of the definition too, and
// gives the OCI index of each, by component; nil when there is no other. The lock has
// been prepared, and the release built for this machine's.
func Indexes(ctx context.Context, b *Builder, def *definition.Definition, rel release.Release) (map[string]digest.Digest, error) {
	archs := b.archs(def)
	if len(archs) < 2 {
		return nil, nil
	}
	platforms := map[string][]image.Platform{}
	for _, arch := range archs {
		manifests := manifestsOf(rel)
		if arch != b.arch() {
			artifacts, err := Components(ctx, b.forArch(arch), def.Components)
			if err != nil {
				return nil, err
			}
			for _, a := range artifacts {
				manifests[a.Component] = a.Manifest
			}
		}
		for name, d := range manifests {
			raw, err := b.Objects.ReadAll(d, image.ManifestLimit)
			if err != nil {
				return nil, err
			}
			platforms[name] = append(platforms[name], image.Platform{Architecture: arch, Manifest: d, Size: int64(len(raw))})
		}
	}
	return b.keepIndexes(platforms)
}

// manifestsOf are the artifacts of a release, the same in every environment.
func manifestsOf(rel release.Release) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for _, env := range rel.Environments {
		for name, c := range env.Components {
			out[name] = c.Spec.Artifact
		}
	}
	return out
}

func (b *Builder) keepIndexes(platforms map[string][]image.Platform) (map[string]digest.Digest, error) {
	batch := b.Objects.NewBatch()
	defer batch.Discard()
	out := map[string]digest.Digest{}
	for name, all := range platforms {
		raw, err := image.AssembleIndex(all)
		if err != nil {
			return nil, err
		}
		d, err := batch.PutBytes(raw)
		if err != nil {
			return nil, err
		}
		if _, known := recall(b.Objects, refIndex, d.Encoded()); !known {
			if err := batch.SetRef(refIndex, d.Encoded(), d); err != nil {
				return nil, err
			}
		}
		out[name] = d
	}
	return out, batch.Commit()
}
