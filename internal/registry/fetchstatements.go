package registry

import (
	"context"
	"errors"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// bundleType is the media type of statements (package trust).
const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Bounds of statements that are fetched.
const (
	maxStatements = 1000     // about one manifest
	maxStatement  = 64 << 20 // bytes of one: of a bundle that package trust reads
)

// FetchStatements brings the statements about what was fetched, the index too, and attaches
// those that can be read and are about it; whether they are worth anything is judged
// elsewhere. It counts in f what it brought and what it left.
func FetchStatements(ctx context.Context, objects *object.Store, f *Fetched) error {
	ref, err := ParseReference(f.Reference)
	if err != nil {
		return err
	}
	unlock, err := objects.Share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, about := range compact(append([]digest.Digest{f.Named}, f.Images...)) {
		if err := fetchStatements(ctx, objects, ref.Context().Digest(about.String()), f); err != nil {
			return err
		}
	}
	return nil
}

func fetchStatements(ctx context.Context, objects *object.Store, subject name.Digest, f *Fetched) error {
	index, err := remote.Referrers(subject, options(ctx)...)
	if err != nil {
		return failed("list the statements about", subject, err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return failed("list the statements about", subject, err)
	}
	if len(list.Manifests) > maxStatements {
		return fault.New(fault.Refused, "%d things refer to %s, more than %d", len(list.Manifests), subject, maxStatements)
	}
	for _, x := range list.Manifests {
		if x.ArtifactType != bundleType {
			f.Others++
			continue
		}
		bundle, err := fetchBundle(ctx, subject.Context(), x.Digest)
		if err != nil {
			return err
		}
		if _, err := referrer.Attach(objects, digest.Digest(subject.DigestStr()), bundle); err != nil {
			if fault.Of(err).Kind != fault.Invalid {
				return err
			}
			f.Others++ // it is no statement, or about something else
			continue
		}
		f.Statements++
	}
	return nil
}

// fetchBundle fetches the one layer of a manifest.
func fetchBundle(ctx context.Context, in name.Repository, manifest v1.Hash) ([]byte, error) {
	ref := in.Digest(manifest.String())
	img, err := remote.Image(ref, options(ctx)...)
	if err != nil {
		return nil, failed("fetch", ref, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, failed("fetch", ref, err)
	}
	if len(layers) != 1 {
		return nil, fault.New(fault.Refused, "the statement %s has %d layers, not one", ref, len(layers))
	}
	r, err := layers[0].Compressed()
	if err != nil {
		return nil, failed("fetch", ref, err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxStatement+1)) // compared with its digest when it ends
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, failed("fetch", ref, err)
	}
	if len(raw) > maxStatement {
		return nil, fault.New(fault.Refused, "the statement %s is too large", ref)
	}
	return raw, nil
}
