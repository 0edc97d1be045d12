package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/inflate"
)

// place is where an image lies: a directory or an archive, as named files.
type place interface {
	open(name string) (io.ReadCloser, int64, error) // fs.ErrNotExist when there is none
	io.Closer
}

// openPlace opens a directory or an archive.
func openPlace(name string) (place, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the image %s cannot be read: %w", name, err).
			Mend("write the path of an OCI layout, or of an archive by  skopeo copy ,  podman save  or  docker save")
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, fault.New(fault.Unavailable, "the image %s cannot be read: %w", name, err)
		}
		return directory{root}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the image %s cannot be read: %w", name, err)
	}
	a, err := scan(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

// directory is a layout on disk. os.Root follows no link out of it.
type directory struct{ root *os.Root }

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = refused("%s is not a file", clip(name))
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (d directory) Close() error { return d.root.Close() }

// archive is a tar of which the members are read where they stand. None is unpacked.
type archive struct {
	io.Closer
	file    io.ReaderAt
	members map[string]member
}

type member struct {
	at, size int64
	link     string // of a symbolic link, which old `docker save` writes for a layer that stands twice
}

// scan finds the members of an archive of that size.
func scan(f interface {
	io.ReaderAt
	io.Closer
}, size int64) (*archive, error) {
	a := &archive{Closer: f, file: f, members: map[string]member{}}
	in := &position{r: io.NewSectionReader(f, 0, size)}
	var head [6]byte
	if n, _ := f.ReadAt(head[:], 0); inflate.Sniff(head[:n]) != "" {
		return nil, refused("the archive is compressed").Mend("uncompress it first, as in  gunzip image.tar.gz")
	}
	t := tar.NewReader(in)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, refused("the archive cannot be read: %w", err)
		}
		if n == maxMembers {
			return nil, refused("the archive has more than %d members", maxMembers)
		}
		name := path.Clean(h.Name)
		m := member{at: in.at, size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			if sparse(h) {
				return nil, refused("member %s of the archive is a sparse file", clip(name))
			}
		case tar.TypeSymlink:
			m.link = path.Join(path.Dir(name), h.Linkname)
		default:
			continue
		}
		if _, twice := a.members[name]; twice {
			return nil, refused("member %s stands twice in the archive", clip(name))
		}
		a.members[name] = m
	}
}

// position is a reader that knows how far it is. tar.Reader reads a member's header
// and no byte more.
type position struct {
	r  *io.SectionReader
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

func (p *position) Seek(offset int64, whence int) (int64, error) {
	at, err := p.r.Seek(offset, whence)
	p.at = at
	return at, err
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	m, ok := a.members[name]
	if ok && m.link != "" {
		m, ok = a.members[m.link]
		ok = ok && m.link == ""
	}
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(a.file, m.at, m.size)), m.size, nil
}

// small reads a file of a place that has to be there, up to the limit for manifests.
func small(p place, name string) ([]byte, error) {
	r, size, err := p.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, missing(name, err)
	}
	defer r.Close()
	if size > manifestLimit {
		return nil, refused("%s has %d bytes; at most %d are read", clip(name), size, manifestLimit)
	}
	b, err := io.ReadAll(io.LimitReader(r, manifestLimit+1))
	if err == nil && int64(len(b)) != size {
		err = refused("%s has %d bytes, not %d as it says", clip(name), len(b), size)
	}
	return b, err
}

// blob reads an index, manifest or configuration and compares it with what names it.
func blob(p place, d ocispec.Descriptor, what string) ([]byte, error) {
	b, err := small(p, blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refused("%s %s is not in the image: %w", what, d.Digest, err).Mend("save the image anew: it is incomplete")
	}
	if err != nil {
		return nil, err
	}
	return b, compare(b, d, what)
}

func compare(b []byte, d ocispec.Descriptor, what string) error {
	if got := digest.FromBytes(b); got != d.Digest {
		return refused("%s is not what names it", what).
			Detail("digest: "+d.Digest.String(), "got:    "+got.String())
	}
	if int64(len(b)) != d.Size {
		return refused("%s %s has %d bytes, not %d as is said of it", what, d.Digest, len(b), d.Size)
	}
	return nil
}

func blobName(d digest.Digest) string {
	hex, _ := image.Hex(d)
	return "blobs/sha256/" + hex
}

// dockerSaved is one image in the manifest.json of `docker save`.
type dockerSaved struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// parseDockerSaved reads manifest.json of a `docker save` archive.
func parseDockerSaved(b []byte) ([]dockerSaved, error) {
	var all []dockerSaved
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&all); err != nil {
		return nil, refused("manifest.json cannot be read: %w", err)
	}
	if len(all) == 0 || len(all) > maxIndexed {
		return nil, refused("manifest.json names %d images", len(all))
	}
	for _, one := range all {
		if one.Config == "" || len(one.Layers) > maxLayers {
			return nil, refused("manifest.json names an image with the configuration %s and %d layers", clip(one.Config), len(one.Layers))
		}
		for _, name := range append([]string{one.Config}, one.Layers...) {
			if name != path.Clean(name) || path.IsAbs(name) || strings.HasPrefix(name, "..") {
				return nil, refused("manifest.json names the file %s, which leads out of the archive", clip(name))
			}
		}
	}
	return all, nil
}
