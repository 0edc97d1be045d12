package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/inflate"
)

// Request says which image is meant.
type Request struct {
	Path   string        // of an OCI layout, an oci-archive or an archive by `docker save`
	Tag    string        // its name there; empty: it is the only one
	Digest digest.Digest // of its manifest, or of an index that leads to it; empty: any
	Arch   string        // GOARCH that it is for
}

// found is an image in a place. Its manifest was compared with what names it.
type found struct {
	place    place
	name     digest.Digest // of manifest
	manifest []byte
	doc      document
	files    map[digest.Digest]string // where blobs are, if not where a layout has them
}

// Find gives the digest of the manifest of the image that is meant, having read no layer
// (of `docker save`, only those that are compressed).
func Find(q Request) (digest.Digest, error) {
	p, err := openPlace(q.Path)
	if err != nil {
		return "", atPath(err, q.Path)
	}
	defer p.Close()
	f, err := find(p, q)
	if err != nil {
		return "", atPath(err, q.Path)
	}
	return f.name, nil
}

// atPath gives a fault of an image its place.
func atPath(err error, path string) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return fmt.Errorf("image %s: %w", path, err)
	}
	if f.Where != "" {
		return f
	}
	c := *f
	if c.Fix == "" {
		c.Fix = "take an image that is whole and sound: save it anew, or ask whoever made it"
	}
	return c.Detail("image:  " + path)
}

func find(p place, q Request) (found, error) {
	b, err := small(p, ocispec.ImageIndexFile)
	if err == nil {
		return findLayout(p, b, q)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return found{}, err
	}
	if b, err = small(p, "manifest.json"); err == nil {
		return findSaved(p, b, q)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = refused("it has neither index.json nor manifest.json: it is not an image").
			Mend("save it with  skopeo copy … oci-archive:image.tar ,  podman save  or  docker save")
	}
	return found{}, err
}

// leaf is a manifest that indexes lead to.
type leaf struct {
	ocispec.Descriptor
	tags  []string        // names at the top, of this manifest or of the index that it is in
	chain []digest.Digest // of the indexes above it, and its own
}

// walker gathers what indexes lead to.
type walker struct {
	place  place
	leaves []leaf
	seen   int
}

func findLayout(p place, index []byte, q Request) (found, error) {
	if v, err := small(p, ocispec.ImageLayoutFile); err != nil || !strings.Contains(string(v), `"`+ocispec.ImageLayoutVersion+`"`) {
		return found{}, refused("it has no file %s of version %s: it is not an OCI layout", ocispec.ImageLayoutFile, ocispec.ImageLayoutVersion)
	}
	doc, err := parseDocument(index, ocispec.ImageIndexFile)
	if err != nil {
		return found{}, err
	}
	w := &walker{place: p}
	for _, m := range doc.Manifests {
		if err := w.walk(m, leaf{tags: tagsOf(m)}, 1); err != nil {
			return found{}, err
		}
	}
	return w.choose(q)
}

// tagsOf gives the names of a manifest in index.json: its own, and that of containerd.
func tagsOf(d ocispec.Descriptor) []string {
	var tags []string
	for _, key := range []string{ocispec.AnnotationRefName, "io.containerd.image.name"} {
		if t := d.Annotations[key]; t != "" {
			tags = append(tags, t)
		}
	}
	return tags
}

func (w *walker) walk(d ocispec.Descriptor, above leaf, depth int) error {
	if w.seen++; w.seen > maxIndexed {
		return refused("its indexes name more than %d manifests", maxIndexed)
	}
	chain := append(slices.Clone(above.chain), d.Digest)
	if d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != dockerIndex {
		w.leaves = append(w.leaves, leaf{d, above.tags, chain})
		return nil
	}
	if depth > maxNesting {
		return refused("its indexes are more than %d deep", maxNesting)
	}
	b, err := blob(w.place, d, "the index")
	if err != nil {
		return err
	}
	doc, err := parseDocument(b, "index "+d.Digest.String())
	if err != nil {
		return err
	}
	for _, m := range doc.Manifests {
		if err := w.walk(m, leaf{tags: above.tags, chain: chain}, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// choose finds the one image that is meant.
func (w *walker) choose(q Request) (found, error) {
	var fit []found
	var platforms, tags []string
	for _, l := range w.leaves {
		tags = append(tags, l.tags...)
		if q.Tag != "" && !slices.ContainsFunc(l.tags, func(t string) bool { return sameTag(t, q.Tag) }) ||
			q.Digest != "" && !slices.Contains(l.chain, q.Digest) || attestation(l.Descriptor) {
			continue
		}
		if p := l.Platform; p != nil && (p.OS != "linux" || p.Architecture != q.Arch) {
			platforms = append(platforms, p.OS+"/"+p.Architecture)
			continue
		}
		f, arch, err := w.load(l.Descriptor)
		if err != nil {
			return found{}, err
		}
		if arch != "linux/"+q.Arch {
			platforms = append(platforms, arch)
			continue
		}
		if !slices.ContainsFunc(fit, func(other found) bool { return other.name == f.name }) {
			fit = append(fit, f)
		}
	}
	return one(fit, q, tags, platforms)
}

// attestation says that a descriptor is of something about an image, not of one.
func attestation(d ocispec.Descriptor) bool {
	return d.ArtifactType != "" || d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

func sameTag(have, want string) bool {
	return have == want || strings.HasSuffix(have, "/"+want) || strings.HasSuffix(have, ":"+want) && !strings.Contains(want, "/")
}

// load reads a manifest and its configuration, and gives the platform.
func (w *walker) load(d ocispec.Descriptor) (found, string, error) {
	b, err := blob(w.place, d, "the manifest")
	if err != nil {
		return found{}, "", err
	}
	f := found{place: w.place, name: d.Digest, manifest: b}
	if f.doc, err = parseDocument(b, "manifest "+d.Digest.String()); err != nil {
		return f, "", err
	}
	if err := f.doc.checkImage("manifest " + d.Digest.String()); err != nil {
		return f, "", err
	}
	b, err = blob(w.place, *f.doc.Config, "the configuration")
	if err != nil {
		return f, "", err
	}
	c, err := parseConfig(b, len(f.doc.Layers))
	return f, c.OS + "/" + c.Architecture, err
}

// one gives the image if it is one, and says what there is otherwise.
func one(fit []found, q Request, tags, platforms []string) (found, error) {
	if len(fit) == 1 {
		return fit[0], nil
	}
	slices.Sort(tags)
	slices.Sort(platforms)
	tags, platforms = slices.Compact(tags), slices.Compact(platforms)
	if len(fit) > 1 {
		e := refused("it holds %d images for linux/%s", len(fit), q.Arch)
		for _, f := range fit[:min(len(fit), 10)] {
			e.Detail("image:  " + f.name.String())
		}
		if len(tags) > 0 {
			e.Detail("tags:   " + clipList(tags))
		}
		return found{}, e.Mend("say which with  tag:  or  digest:")
	}
	switch {
	case q.Digest != "" && len(platforms) == 0:
		return found{}, fault.New(fault.Conflict, "it does not hold the image %s", q.Digest).
			Mend("put that image back, or take what is there with  ashlar build --update")
	case q.Tag != "" && len(platforms) == 0:
		return found{}, fault.New(fault.NotFound, "it holds no image with the tag %s", clip(q.Tag)).
			Detail("tags:   " + clipList(tags)).Mend("correct  tag:")
	}
	return found{}, fault.New(fault.NotFound, "it holds no image for linux/%s", q.Arch).
		Detail("there:  " + clipList(platforms)).Mend("save the image for that platform too")
}

func clipList(all []string) string {
	var out []string
	for _, s := range all[:min(len(all), 10)] {
		out = append(out, strings.Trim(clip(s), `"`))
	}
	if len(all) > 10 {
		out = append(out, fmt.Sprintf("and %d more", len(all)-10))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// findSaved finds an image in a `docker save` archive.
func findSaved(p place, manifest []byte, q Request) (found, error) {
	all, err := parseDockerSaved(manifest)
	if err != nil {
		return found{}, err
	}
	var fit []found
	var tags, platforms []string
	for _, s := range all {
		tags = append(tags, s.RepoTags...)
		if q.Tag != "" && !slices.ContainsFunc(s.RepoTags, func(t string) bool { return sameTag(t, q.Tag) }) {
			continue
		}
		config, err := small(p, s.Config)
		if err != nil {
			return found{}, missing(s.Config, err)
		}
		c, err := parseConfig(config, len(s.Layers))
		if err != nil {
			return found{}, err
		}
		if c.OS != "linux" || c.Architecture != q.Arch {
			platforms = append(platforms, c.OS+"/"+c.Architecture)
			continue
		}
		f, err := savedImage(p, s, config, c)
		if err != nil {
			return found{}, err
		}
		if q.Digest == "" || q.Digest == f.name {
			fit = append(fit, f)
		}
	}
	return one(fit, q, tags, platforms)
}

func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refused("the file %s is not in the archive: %w", clip(name), err).Mend("save the image anew: it is incomplete")
	}
	if !errors.As(err, new(*fault.Error)) {
		err = refused("the file %s cannot be read: %w", clip(name), err)
	}
	return err
}

// savedImage makes the manifest of an image that has none.
func savedImage(p place, s dockerSaved, config []byte, c ocispec.Image) (found, error) {
	f := found{place: p, files: map[digest.Digest]string{digest.FromBytes(config): s.Config}}
	var layers []ocispec.Descriptor
	for i, name := range s.Layers {
		d, err := savedLayer(p, name, c.RootFS.DiffIDs[i])
		if err != nil {
			return f, missing(name, err)
		}
		f.files[d.Digest] = name
		layers = append(layers, d)
	}
	var err error
	if f.manifest, err = dockerImage(config, layers); err != nil {
		return f, err
	}
	f.name = digest.FromBytes(f.manifest)
	if f.doc, err = parseDocument(f.manifest, "the image"); err != nil {
		return f, err
	}
	return f, f.doc.checkImage("the image")
}

// savedLayer describes a layer: one that is not compressed has its DiffID for a name,
// which is compared when it is read.
func savedLayer(p place, name string, diffID digest.Digest) (ocispec.Descriptor, error) {
	r, size, err := p.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID, Size: size}
	suffix := map[string]string{".gz": "+gzip", ".zst": "+zstd"}[inflate.Sniff(head[:n])]
	if suffix == "" {
		return d, nil
	}
	sum := digest.SHA256.Digester()
	sum.Hash().Write(head[:n])
	if _, err := io.Copy(sum.Hash(), io.LimitReader(r, blobLimit)); err != nil {
		return d, err
	}
	d.MediaType, d.Digest = d.MediaType+suffix, sum.Digest()
	return d, nil
}
