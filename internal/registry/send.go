package registry

import (
	"context"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Pushed is what a push did.
type Pushed struct {
	Reference  string        `json:"reference"` // with the digest
	Manifest   digest.Digest `json:"manifest"`  // of the image, or of the index of several
	Images     int           `json:"images"`
	Statements int           `json:"statements"`
	Bytes      int64         `json:"bytes"` // that were sent; what the other side had was not
}

// Push brings an image of the object store, or an index with all its images, to another
// registry, with the statements about each of them: built by Ashlar, whose layers are made
// while they are sent, or fetched before. A registry that does not list referrers gets
// statements under the fallback tag of the specification. What the other side has is not
// sent again.
func Push(ctx context.Context, objects *object.Store, manifest digest.Digest, to string, tell func(Moved)) (Pushed, error) {
	ref, err := ParseReference(to)
	if err != nil {
		return Pushed{}, err
	}
	if d, ok := ref.(name.Digest); ok && d.DigestStr() != manifest.String() {
		return Pushed{}, fault.New(fault.Invalid, "%s names another digest than %s", to, manifest).Mend("name a tag")
	}
	if ref.Identifier() == "" {
		return Pushed{}, fault.New(fault.Invalid, "%s names no tag", to).Mend("write  %s:TAG", to)
	}
	unlock, err := objects.Share(ctx)
	if err != nil {
		return Pushed{}, err
	}
	defer unlock()
	pusher, err := remote.NewPusher(options(ctx)...)
	if err != nil {
		return Pushed{}, failed("push to", ref, err)
	}
	out := Pushed{Reference: ref.Context().Name() + "@" + manifest.String(), Manifest: manifest}
	o := &opener{objects: objects, tell: tell}
	top, images, err := o.manifest(manifest)
	if err != nil {
		return Pushed{}, err
	}
	if err := pusher.Push(ctx, ref, top); err != nil {
		return Pushed{}, failed("push to", ref, err)
	}
	out.Images = len(images)
	for _, about := range compact(append(images, manifest)) {
		if err := o.statements(ctx, pusher, ref.Context(), about, &out); err != nil {
			return out, err
		}
	}
	out.Bytes = o.sent.Load()
	return out, nil
}

// statements sends what is said about a manifest that was sent.
func (o *opener) statements(ctx context.Context, pusher *remote.Pusher, to name.Repository, about digest.Digest, out *Pushed) error {
	all, err := Statements(o.objects, about)
	if err != nil {
		return err
	}
	for _, s := range all { // one after another: the fallback tag is read and written
		img, err := o.image(s.Manifest)
		if err != nil {
			return err
		}
		ref := to.Digest(s.Manifest.String())
		if err := pusher.Push(ctx, ref, img); err != nil {
			return failed("push to", ref, err)
		}
		out.Statements++
	}
	return nil
}
