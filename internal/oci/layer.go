package oci

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// layer is what one layer does to what is below it (image-spec, layer.md). Its lists
// are sorted.
type layer struct {
	entries []image.Entry // without those that only lead to others
	removed []string      // paths that are hidden (whiteouts)
	opaque  []string      // directories of which everything below is hidden
	links   []hardLink    // to files of the layers below
}

// hardLink is a second name of a file that another layer has.
type hardLink struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// putter stores file bytes; *object.Batch is one.
type putter interface {
	Put(r io.Reader, limit int64) (digest.Digest, int64, error)
}

// reader makes a layer of a tar.
type reader struct {
	store putter
	layer layer
	seen  map[string]int // path to index in layer.entries, -1 for anything else
}

// readLayer reads a layer's tar. It writes nothing but the objects that it puts.
func readLayer(r io.Reader, store putter) (layer, error) {
	l := &reader{store: store, seen: map[string]int{}}
	raw := &headers{r: r}
	t := tar.NewReader(raw)
	for n := 0; ; n++ {
		h, err := raw.next(t)
		if errors.Is(err, io.EOF) {
			return l.done()
		}
		if err != nil {
			return layer{}, tarFault(err)
		}
		if n == maxEntries {
			return layer{}, refused("it has more than %d entries", maxEntries)
		}
		if err := l.member(h, t); err != nil {
			return layer{}, err
		}
	}
}

func tarFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return refused("its tar cannot be read: %w", err)
}

// hostile is the fault for an entry that no image may have.
func hostile(h *tar.Header, format string, args ...any) *fault.Error {
	return refused("entry %s %w", clip(h.Name), fmt.Errorf(format, args...))
}

func (l *reader) member(h *tar.Header, body io.Reader) error {
	p, why := memberPath(h.Name)
	if why != "" {
		return hostile(h, "%s", why)
	}
	if name := path.Base(p); strings.HasPrefix(name, whiteout) {
		return l.whiteout(h, p, name)
	}
	if i, ok := l.seen[p]; ok {
		if i < 0 || h.Typeflag != tar.TypeDir || l.layer.entries[i].Type != image.Dir {
			return hostile(h, "stands twice in the layer")
		}
	}
	e, err := l.entry(h, p, body)
	if err != nil || e.Path == "" {
		return err
	}
	if i, ok := l.seen[p]; ok { // a directory, said again
		if image.Diff(image.Tree{Entries: l.layer.entries[i : i+1]}, image.Tree{Entries: []image.Entry{e}}) != nil {
			return hostile(h, "stands twice in the layer, with different attributes")
		}
		return nil
	}
	if p == "." && e.Type != image.Dir {
		return hostile(h, "replaces the root directory")
	}
	l.seen[p] = len(l.layer.entries)
	l.layer.entries = append(l.layer.entries, e)
	return nil
}

// whiteout notes what a layer hides.
func (l *reader) whiteout(h *tar.Header, p, name string) error {
	dir, hidden := path.Dir(p), strings.TrimPrefix(name, whiteout)
	switch {
	case h.Typeflag != tar.TypeReg || h.Size != 0:
		return hostile(h, "is named as a whiteout and is no empty file")
	case name == whiteoutOpaque:
		l.layer.opaque = append(l.layer.opaque, dir)
	case hidden == "" || hidden == "." || hidden == ".." || strings.HasPrefix(hidden, whiteout):
		return hostile(h, "is a whiteout of nothing")
	default:
		l.layer.removed = append(l.layer.removed, path.Join(dir, hidden))
	}
	if _, twice := l.seen[p]; twice {
		return hostile(h, "stands twice in the layer")
	}
	l.seen[p] = -1
	return nil
}

// entry makes the entry of a member; one without a path when it is a link to another layer.
func (l *reader) entry(h *tar.Header, p string, body io.Reader) (image.Entry, error) {
	xattrs, err := xattrsOf(h)
	if err != nil {
		return image.Entry{}, err
	}
	e := image.Entry{Path: p, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, MTime: max(0, h.ModTime.Unix()), Xattrs: xattrs}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type = image.Dir
	case tar.TypeReg:
		err = l.file(h, &e, body)
	case tar.TypeSymlink:
		e.Type, e.Mode, e.Link = image.Symlink, 0o777, h.Linkname
	case tar.TypeLink:
		return l.hardLink(h, p)
	case tar.TypeChar, tar.TypeBlock:
		err = hostile(h, "is a device").Mend("make the image without it: every instance has its own /dev")
	case tar.TypeFifo:
		err = hostile(h, "is a named pipe").Mend("make the image without it; the program can make it in a tmpfs")
	case tar.TypeGNUSparse:
		err = hostile(h, "is a sparse file").Mend("make the image with a tar that writes files whole")
	default:
		err = hostile(h, "is of the unknown type %q", h.Typeflag)
	}
	if err != nil {
		return image.Entry{}, err
	}
	return valid(e)
}

// valid refuses what no tree can say.
func valid(e image.Entry) (image.Entry, error) {
	if err := e.Validate(); err != nil {
		return e, refused("entry %s: %s", clip(e.Path), fault.Of(err).What)
	}
	return e, nil
}

func (l *reader) file(h *tar.Header, e *image.Entry, body io.Reader) (err error) {
	if sparse(h) {
		return hostile(h, "is a sparse file").Mend("make the image with a tar that writes files whole")
	}
	e.Type = image.File
	e.Digest, e.Size, err = l.store.Put(body, fileLimit)
	if err != nil && !errors.As(err, new(*fault.Error)) { // of reading; the store's own are faults
		err = hostile(h, "cannot be read: %w", err)
	}
	return err
}

// sparse says that a PAX header makes a file longer than its bytes. Expanding it would
// go around every bound on decompression.
func sparse(h *tar.Header) bool {
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (l *reader) hardLink(h *tar.Header, p string) (image.Entry, error) {
	to, why := memberPath(h.Linkname)
	if why != "" {
		return image.Entry{}, hostile(h, "is a hard link to %s, which %s", clip(h.Linkname), why)
	}
	i, here := l.seen[to]
	if !here {
		l.seen[p] = -1
		l.layer.links = append(l.layer.links, hardLink{p, to})
		return image.Entry{}, nil
	}
	if i < 0 || l.layer.entries[i].Type == image.Dir {
		return image.Entry{}, hostile(h, "is a hard link to %s, which is no file", clip(h.Linkname))
	}
	e := l.layer.entries[i]
	e.Path = p
	return valid(e)
}

// xattrsOf gives the extended attributes, as Go and star write them, or as bsdtar does.
func xattrsOf(h *tar.Header) (map[string]string, error) {
	var out map[string]string
	set := func(name, value string) {
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	for record, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(record, "LIBARCHIVE.xattr."); ok {
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				return nil, hostile(h, "has an extended attribute %s that is not base64", clip(name))
			}
			set(name, string(raw))
		}
	}
	for record, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(record, "SCHILY.xattr."); ok {
			set(name, value)
		}
	}
	return out, nil
}

// done sorts the layer and refuses entries below what is no directory: tar has them
// unpacked through the link, which is how one leaves the root.
func (l *reader) done() (layer, error) {
	for p := range l.seen {
		for up := path.Dir(p); up != "."; up = path.Dir(up) {
			i, ok := l.seen[up]
			if ok && (i < 0 || l.layer.entries[i].Type != image.Dir) {
				return layer{}, refused("entry %s is to be unpacked through %s, which the same layer makes something else than a directory", clip(p), clip(up))
			}
			if ok {
				break // what is above it is looked at for itself
			}
		}
	}
	l.layer.entries = image.Sorted(l.layer.entries).Entries
	slices.Sort(l.layer.removed)
	slices.Sort(l.layer.opaque)
	slices.SortFunc(l.layer.links, func(a, b hardLink) int { return strings.Compare(a.Path, b.Path) })
	return l.layer, nil
}

// memberPath makes the name of a member clean and relative to the root, or says what is
// wrong with it.
func memberPath(name string) (p, why string) {
	switch {
	case name == "":
		return "", "has no name"
	case strings.HasPrefix(name, "/"):
		return "", "has an absolute path"
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return "", "has a name that is not UTF-8, or holds NUL"
	case slices.Contains(strings.Split(name, "/"), ".."):
		return "", "leaves the root by .."
	}
	return path.Clean(name), ""
}
