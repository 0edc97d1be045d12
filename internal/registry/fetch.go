package registry

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// Bounds of what is fetched.
const (
	maxImage      = 64 << 30  // bytes of one image
	maxTries      = 3         // of one blob
	maxStatements = 1000      // about one image
	maxStatement  = 128 << 20 // bytes of one
)

// bundleType is the media type of statements (package trust).
const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Fetched is an image that is in the object store, whole: manifest, configuration and
// layers are objects, under the names that the manifest gives them.
type Fetched struct {
	Reference  string               `json:"reference"` // with the digest of what was named
	Repository string               `json:"repository"`
	Named      digest.Digest        `json:"named"`    // what the reference leads to: a manifest or an index
	Manifest   digest.Digest        `json:"manifest"` // of the image
	Config     digest.Digest        `json:"config"`
	Layers     []ocispec.Descriptor `json:"layers"`
	Statements int                  `json:"statements"`
	Others     int                  `json:"others"` // that refer to it and were left there
	Bytes      int64                `json:"bytes"`  // that were fetched; what was here was not
}

// Fetch brings an image from another registry into the object store, by tag or digest.
// Of an index it takes the image for linux and that architecture (GOARCH). Everything is compared with its
// digest and size, and appears only when it is. What is here already is not fetched
// again. It stays as what is pushed does, in the repository HOST/NAME, under its tag; with
// loose set without one, so that it goes after a day if nothing else keeps it. Garbage is
// not collected meanwhile.
func Fetch(ctx context.Context, objects *object.Store, reference, arch string, loose bool, tell func(Moved)) (Fetched, error) {
	ref, err := ParseReference(reference)
	if err != nil {
		return Fetched{}, err
	}
	if ref.Identifier() == "" {
		return Fetched{}, fault.New(fault.Invalid, "%s names neither a tag nor a digest", reference).Mend("write  %s:TAG", reference)
	}
	unlock, err := objects.Share(ctx)
	if err != nil {
		return Fetched{}, err
	}
	defer unlock()
	f := &fetcher{objects: objects, ref: ref, arch: arch, loose: loose, tell: tell, into: openRepository(objects, localName(ref.Context()))}
	if f.puller, err = remote.NewPuller(options(ctx)...); err != nil {
		return Fetched{}, failed("fetch", ref, err)
	}
	return f.fetch(ctx)
}

// localName is the repository of what is fetched: the host and the name. A port is set
// off by an underscore, as a colon may not be in a name.
func localName(r name.Repository) string {
	host := strings.NewReplacer(":", "_", "[", "", "]", "").Replace(strings.ToLower(r.RegistryStr()))
	if n := host + "/" + r.RepositoryStr(); validName(n) {
		return n
	}
	return "other/" + digest.FromString(r.Name()).Encoded()[:32]
}

type fetcher struct {
	objects *object.Store
	puller  *remote.Puller
	ref     name.Reference
	arch    string
	loose   bool
	tell    func(Moved)
	into    repository
	got     atomic.Int64
}

func (f *fetcher) fetch(ctx context.Context) (Fetched, error) {
	named, raw, doc, err := f.manifest(ctx, f.ref, "")
	if err != nil {
		return Fetched{}, err
	}
	out := Fetched{Reference: f.ref.Context().Name() + "@" + named.String(), Repository: f.into.name, Named: named, Manifest: named}
	batch := f.objects.NewBatch()
	defer batch.Discard()
	if err := f.link(batch, named, raw); err != nil {
		return Fetched{}, err
	}
	if err := f.into.stageName(batch); err != nil {
		return Fetched{}, err
	}
	if isIndex(doc.MediaType) {
		choice, err := choose(doc, f.arch, f.ref)
		if err != nil {
			return Fetched{}, err
		}
		if out.Manifest, raw, doc, err = f.manifest(ctx, f.ref.Context().Digest(choice.Digest.String()), choice.Digest); err != nil {
			return Fetched{}, err
		}
		if isIndex(doc.MediaType) {
			return Fetched{}, fault.New(fault.Refused, "the index %s names an index for linux/%s, not an image", named, f.arch)
		}
		if err := f.link(batch, out.Manifest, raw); err != nil {
			return Fetched{}, err
		}
	}
	out.Config, out.Layers = doc.Blobs[0].Digest, doc.Blobs[1:]
	if err := f.blobs(ctx, batch, doc); err != nil {
		return Fetched{}, err
	}
	if tag, ok := f.ref.(name.Tag); ok && !f.loose {
		if err := batch.SetRef(kindTags+f.into.id, tag.TagStr(), named); err != nil {
			return Fetched{}, err
		}
	}
	if err := batch.Commit(); err != nil {
		return Fetched{}, err
	}
	out.Bytes = f.got.Load()
	return out, nil
}

// manifest fetches a manifest, which has to be what its digest says if there is one.
func (f *fetcher) manifest(ctx context.Context, ref name.Reference, want digest.Digest) (digest.Digest, []byte, document, error) {
	got, err := f.puller.Get(ctx, ref)
	if err != nil {
		return "", nil, document{}, failed("fetch", ref, err)
	}
	d := digest.FromBytes(got.Manifest)
	if byDigest, ok := ref.(name.Digest); ok {
		want = digest.Digest(byDigest.DigestStr())
	}
	if want != "" && d != want {
		return "", nil, document{}, fault.New(fault.Refused, "what %s serves is %s", ref, d)
	}
	doc, err := parseDocument(got.Manifest, string(got.MediaType))
	if err != nil {
		return "", nil, document{}, fault.New(fault.Refused, "the manifest %s is not accepted: %w", ref, err)
	}
	return d, got.Manifest, doc, nil
}

// link adds a manifest to the batch, and to the repository.
func (f *fetcher) link(batch *object.Batch, d digest.Digest, raw []byte) error {
	if _, err := batch.PutBytes(raw); err != nil {
		return err
	}
	return batch.SetRef(kindManifests+f.into.id, refName(d), d)
}

// choose picks the image of an index for a platform.
func choose(doc document, arch string, ref name.Reference) (ocispec.Descriptor, error) {
	var known []string
	for _, x := range doc.Manifests {
		if x.Platform == nil || x.ArtifactType != "" || x.Platform.OS == "unknown" {
			continue
		}
		if x.Platform.OS == "linux" && x.Platform.Architecture == arch && (x.Platform.Variant == "" || arch != "arm") {
			return x, nil
		}
		known = append(known, x.Platform.OS+"/"+x.Platform.Architecture)
	}
	return ocispec.Descriptor{}, fault.New(fault.NotFound, "%s has no image for linux/%s", ref, arch).Detail("it has: " + strings.Join(known, ", "))
}

// blobs fetches what is not here, several at the same time.
func (f *fetcher) blobs(ctx context.Context, batch *object.Batch, doc document) error {
	if len(doc.Foreign) > 0 {
		return fault.New(fault.Refused, "%s has layers that are to be fetched elsewhere", f.ref)
	}
	var total int64
	seen := map[digest.Digest]bool{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, x := range doc.Blobs {
		if seen[x.Digest] {
			continue
		}
		seen[x.Digest] = true
		if x.Digest.Algorithm() != digest.SHA256 {
			return fault.New(fault.Refused, "%s has a blob that is not named by SHA-256: %s", f.ref, x.Digest)
		}
		if total += x.Size; x.Size > maxBlob || total > maxImage || total < 0 {
			return fault.New(fault.Refused, "%s is too large: a blob may have %d bytes, an image %d", f.ref, int64(maxBlob), int64(maxImage))
		}
		g.Go(func() error {
			if err := f.blob(ctx, batch, x); err != nil {
				return err
			}
			return batch.SetRef(kindBlobs+f.into.id, refName(x.Digest), x.Digest)
		})
	}
	return g.Wait()
}

// blob fetches one blob, again if it breaks off.
func (f *fetcher) blob(ctx context.Context, batch *object.Batch, x ocispec.Descriptor) error {
	m := Moved{What: short(x.Digest), Total: x.Size}
	if sizeOf(f.objects, x.Digest) == x.Size {
		m.Had, m.Bytes = true, x.Size
		f.tell(m)
		return nil
	}
	var err error
	for range maxTries {
		if err = f.try(ctx, batch, x, m); err == nil || ctx.Err() != nil || fault.Of(err).Kind == fault.Refused {
			break
		}
	}
	return err
}

func (f *fetcher) try(ctx context.Context, batch *object.Batch, x ocispec.Descriptor, m Moved) error {
	layer, err := f.puller.Layer(ctx, f.ref.Context().Digest(x.Digest.String()))
	if err != nil {
		return failed("fetch", f.ref, err)
	}
	r, err := layer.Compressed()
	if err != nil {
		return failed("fetch", f.ref, err)
	}
	n, err := batch.PutVerified(&counted{ReadCloser: r, m: m, tell: f.tell, sum: &f.got}, x.Digest, x.Size)
	if err = errors.Join(err, r.Close()); err != nil {
		return failed("fetch blob "+short(x.Digest)+" of", f.ref, err)
	}
	if n != x.Size {
		return fault.New(fault.Refused, "the blob %s has %d bytes, the manifest says %d", x.Digest, n, x.Size)
	}
	return nil
}

// FetchStatements brings the statements about an image that was fetched, and attaches
// those that can be read and are about it; whether they are worth anything is judged
// elsewhere. It counts in f what it brought and what it left.
func FetchStatements(ctx context.Context, objects *object.Store, f *Fetched) error {
	ref, err := ParseReference(f.Reference)
	if err != nil {
		return err
	}
	subject := ref.Context().Digest(f.Manifest.String())
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
	unlock, err := objects.Share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, x := range list.Manifests {
		if x.ArtifactType != bundleType {
			f.Others++
			continue
		}
		bundle, err := fetchBundle(ctx, subject.Context(), x.Digest)
		if err != nil {
			return err
		}
		if _, err := referrer.Attach(objects, f.Manifest, bundle); err != nil {
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
	if err != nil || len(layers) != 1 {
		return nil, fault.New(fault.Refused, "the statement %s has not one layer (%d): %w", ref, len(layers), errors.Join(err, errors.ErrUnsupported))
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
