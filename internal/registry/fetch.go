package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Bounds of what is fetched.
const (
	maxImage  = 64 << 30 // bytes of all that is fetched at once
	maxImages = 256      // of one index
	maxTries  = 3        // of one blob
)

// Fetched is an image that is in the object store, whole: manifest, configuration and
// layers are objects, under the names that the manifest gives them. Or several of an index.
type Fetched struct {
	Reference  string               `json:"reference"` // with the digest of what was named
	Repository string               `json:"repository"`
	Named      digest.Digest        `json:"named"`    // what the reference leads to: a manifest or an index
	Manifest   digest.Digest        `json:"manifest"` // of the image; of all, the index
	Images     []digest.Digest      `json:"images"`   // manifests of all that were fetched
	Layers     []ocispec.Descriptor `json:"layers"`   // of the image; of all, each once
	Statements int                  `json:"statements"`
	Others     int                  `json:"others"` // that refer to it and were left there
	Bytes      int64                `json:"bytes"`  // that were fetched; what was here was not
}

// Fetch brings an image from another registry into the object store, by tag or digest.
// Of an index it takes the image for linux and that architecture (GOARCH), or with an
// empty one all images. Everything is compared with its digest and size, and appears
// only when it is. What is here already is not fetched again. It stays as what is pushed
// does, in the repository HOST/NAME, under its tag; with loose set without one, so that
// it goes after a day if nothing else keeps it. Garbage is not collected meanwhile.
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
	images := map[digest.Digest]document{named: doc}
	if isIndex(doc.MediaType) {
		if images, err = f.images(ctx, batch, doc); err != nil {
			return Fetched{}, err
		}
	}
	out.Images = slices.Sorted(maps.Keys(images))
	if f.arch != "" {
		out.Manifest = out.Images[0]
	}
	blobs, layers, err := f.wanted(images)
	if err != nil {
		return Fetched{}, err
	}
	if err := f.blobs(ctx, batch, blobs); err != nil {
		return Fetched{}, err
	}
	out.Layers = layers
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

// images fetches the manifests that are wanted of an index.
func (f *fetcher) images(ctx context.Context, batch *object.Batch, index document) (map[digest.Digest]document, error) {
	wanted := index.Manifests
	if f.arch != "" {
		one, err := choose(index, f.arch, f.ref)
		if err != nil {
			return nil, err
		}
		wanted = []ocispec.Descriptor{one}
	}
	if len(wanted) == 0 || len(wanted) > maxImages {
		return nil, fault.New(fault.Refused, "the index %s has %d images; at least one and at most %d can be fetched", f.ref, len(wanted), maxImages)
	}
	images := map[digest.Digest]document{}
	for _, x := range wanted {
		d, raw, doc, err := f.manifest(ctx, f.ref.Context().Digest(x.Digest.String()), x.Digest)
		if err != nil {
			return nil, err
		}
		if isIndex(doc.MediaType) {
			return nil, fault.New(fault.Refused, "the index %s names an index for %s, not an image", f.ref, platformOf(x))
		}
		if err := f.link(batch, d, raw); err != nil {
			return nil, err
		}
		images[d] = doc
	}
	return images, nil
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
		known = append(known, platformOf(x))
	}
	return ocispec.Descriptor{}, fault.New(fault.NotFound, "%s has no image for linux/%s", ref, arch).Detail("it has: " + strings.Join(known, ", "))
}

// platformOf is what an index says of an image in words.
func platformOf(x ocispec.Descriptor) string {
	if x.Platform == nil {
		return x.Digest.String()
	}
	return x.Platform.OS + "/" + x.Platform.Architecture
}

// wanted lists the blobs of images, each once, if they may be fetched; and which are layers.
func (f *fetcher) wanted(images map[digest.Digest]document) (blobs, layers []ocispec.Descriptor, err error) {
	var total int64
	seen := map[digest.Digest]bool{}
	for _, d := range slices.Sorted(maps.Keys(images)) {
		if len(images[d].Foreign) > 0 {
			return nil, nil, fault.New(fault.Refused, "%s has layers that are to be fetched elsewhere", f.ref)
		}
		for i, x := range images[d].Blobs {
			if seen[x.Digest] {
				continue
			}
			seen[x.Digest] = true
			if x.Digest.Algorithm() != digest.SHA256 {
				return nil, nil, fault.New(fault.Refused, "%s has a blob that is not named by SHA-256: %s", f.ref, x.Digest)
			}
			if total += x.Size; x.Size > maxBlob || total > maxImage || total < 0 {
				return nil, nil, fault.New(fault.Refused, "%s is too large: a blob may have %d bytes, all together %d", f.ref, int64(maxBlob), int64(maxImage))
			}
			blobs = append(blobs, x)
			if i > 0 {
				layers = append(layers, x)
			}
		}
	}
	return blobs, layers, nil
}

// blobs fetches what is not here, several at the same time.
func (f *fetcher) blobs(ctx context.Context, batch *object.Batch, all []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, x := range all {
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
