package debian

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/inflate"
)

// Bounds of one package. Debian's largest packages unpack to about 2 GB and have
// some 60,000 members.
const (
	maxUnpacked  = 8 << 30
	maxFile      = 4 << 30
	maxEntries   = 200_000
	maxControl   = 64 << 20 // of control.tar, unpacked
	maxScript    = 4 << 20  // of one file in it that is kept
	maxPathBytes = 4095
	maxNameBytes = 255
)

// debFormat is the version of unpacked's meaning: raise it when the unpacking of
// the same .deb would give another result, and cached ones are not used any more.
const debFormat = 2

// unpacked is what one .deb holds, its file bytes being objects. It is cached
// under the .deb's digest.
type unpacked struct {
	Package string            `json:"package"`
	Version string            `json:"version"`
	Arch    string            `json:"arch"`
	Control map[string]string `json:"control"` // the fields that matter later: Replaces, Multi-Arch, …
	Scripts map[string]string `json:"scripts"` // preinst, postinst
	Entries []image.Entry     `json:"entries"` // sorted by path, after usrmerge, without the root; times as shipped

	Shipped  map[string]string `json:"shipped,omitempty"`  // path of an entry to the member's name, where usrmerge moved it
	Stripped map[string]bool   `json:"stripped,omitempty"` // paths of files that were shipped set-user-ID or set-group-ID
}

// keptFields are the control fields that Tree and its ledger need.
var keptFields = []string{"Replaces", "Multi-Arch", "Provides", "Source"}

// putter stores file bytes; *object.Batch is one.
type putter interface {
	Put(r io.Reader, limit int64) (digest.Digest, int64, error)
}

// unpackDeb reads a .deb (deb(5)): debian-binary, control.tar, data.tar, in that
// order. name is for errors. It writes nothing but the objects it puts.
func unpackDeb(r io.Reader, name string, store putter) (*unpacked, error) {
	refuse := func(err error) error {
		if errors.As(err, new(*fault.Error)) {
			return err
		}
		return fault.New(fault.Refused, "package %s is not a sound .deb: %w", name, err)
	}
	a, err := newAr(bufio.NewReaderSize(r, 256<<10))
	if err != nil {
		return nil, refuse(err)
	}
	if err := readMagic(a); err != nil {
		return nil, refuse(err)
	}
	u := &unpacked{Control: map[string]string{}, Scripts: map[string]string{}}
	if err := tarMember(a, "control.tar", maxControl, u.readControl); err != nil {
		return nil, refuse(err)
	}
	d := &dataReader{pkg: name, store: store, seen: map[string]int{}, setID: map[string]bool{}}
	if err := tarMember(a, "data.tar", maxUnpacked, d.read); err != nil {
		return nil, refuse(err)
	}
	for {
		m, err := a.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, refuse(err)
		}
		if !strings.HasPrefix(m.name, "_") {
			return nil, refuse(fmt.Errorf("unexpected member %s after data.tar", clip(m.name)))
		}
	}
	if err := d.merged(u); err != nil {
		return nil, refuse(err)
	}
	return u, nil
}

func readMagic(a *arReader) error {
	m, err := a.next()
	if err != nil || m.name != "debian-binary" || m.size > 64 {
		return errors.New("its first member is not debian-binary")
	}
	v, err := io.ReadAll(a)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(v), "2.") {
		return fmt.Errorf("format version %s is not known", clip(string(v)))
	}
	return nil
}

// tarMember opens the next ar member, which must be the tar of this name under
// any compression, and reads it to its very end, so that a compressor's checksum
// is always compared.
func tarMember(a *arReader, base string, limit int64, read func(*tar.Reader) error) (err error) {
	m, err := a.next()
	for err == nil && strings.HasPrefix(m.name, "_") {
		m, err = a.next() // deb(5): may be ignored
	}
	if err != nil {
		return fmt.Errorf("%s is missing: %w", base, noEOF(err))
	}
	ext, ok := strings.CutPrefix(m.name, base)
	if !ok {
		return fmt.Errorf("member %s stands where %s belongs", clip(m.name), base)
	}
	body, err := inflate.Reader(a, ext, limit)
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := read(tar.NewReader(body)); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}

func (u *unpacked) readControl(t *tar.Reader) error {
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("more than %d members", maxEntries)
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || name != "control" && name != "preinst" && name != "postinst" {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(t, maxScript+1))
		if err != nil {
			return err
		}
		if len(body) > maxScript || !utf8.Valid(body) {
			return fmt.Errorf("%s is not text or too long", name)
		}
		if name != "control" {
			u.Scripts[name] = string(body)
			continue
		}
		s, _, err := nextStanza(string(body), nil)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		u.Package, u.Version, u.Arch = s.get("Package"), s.get("Version"), s.get("Architecture")
		for _, f := range keptFields {
			if v := s.get(f); v != "" {
				u.Control[f] = v
			}
		}
	}
	if u.Package == "" {
		return errors.New("it has no control file")
	}
	return nil
}

// dataReader turns data.tar into entries.
type dataReader struct {
	pkg     string
	store   putter
	entries []image.Entry
	seen    map[string]int  // path as shipped to index in entries
	setID   map[string]bool // paths as shipped of files whose set-id bits were taken away
}

func (d *dataReader) read(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(d.entries) == maxEntries {
			return fmt.Errorf("more than %d members", maxEntries)
		}
		if err := d.member(h, t); err != nil {
			return err
		}
	}
}

// hostile is the fault for a member that no build may contain.
func (d *dataReader) hostile(h *tar.Header, why string) error {
	return fault.New(fault.Refused, "package %s: member %s %s", d.pkg, clip(h.Name), why).
		Mend("do not use this package; if it is one of Debian's own, exclude it")
}

func (d *dataReader) member(h *tar.Header, body io.Reader) error {
	p, why := memberPath(h.Name)
	if why != "" {
		return d.hostile(h, why)
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > 65534 || h.Gid > 65534 {
		return d.hostile(h, fmt.Sprintf("has an impossible owner %d:%d", h.Uid, h.Gid))
	}
	if up := d.throughLink(p); up != "" {
		return d.hostile(h, fmt.Sprintf("is to be unpacked through the symbolic link %s of the same package", up))
	}
	e := image.Entry{Path: p, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, MTime: max(0, h.ModTime.Unix())}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type = image.Dir
	case tar.TypeReg:
		// A sparse file expands outside what decompress bounds, and no .deb needs one.
		for record := range h.PAXRecords {
			if strings.HasPrefix(record, "GNU.sparse.") {
				return d.hostile(h, "is a sparse file")
			}
		}
		var err error
		if e.Digest, e.Size, err = d.store.Put(body, maxFile); err != nil {
			return err
		}
		if e.Mode&0o6000 != 0 {
			d.setID[p] = true
		}
		e.Type, e.Mode = image.File, e.Mode&0o1777
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPathBytes || !plain(h.Linkname) {
			return d.hostile(h, "is a symbolic link to an impossible target")
		}
		e.Type, e.Mode, e.Link = image.Symlink, 0o777, h.Linkname
	case tar.TypeLink:
		to, why := memberPath(h.Linkname)
		i, ok := d.seen[to]
		if why != "" || !ok || d.entries[i].Type != image.File {
			return d.hostile(h, fmt.Sprintf("is a hard link to %s, which is no earlier file of the package", clip(h.Linkname)))
		}
		if d.setID[to] {
			d.setID[p] = true
		}
		e = d.entries[i]
		e.Path = p
	case tar.TypeChar, tar.TypeBlock:
		return d.hostile(h, "is a device")
	case tar.TypeFifo:
		return d.hostile(h, "is a named pipe")
	default:
		return d.hostile(h, fmt.Sprintf("is of the unknown type %q", h.Typeflag))
	}
	return d.add(h, e)
}

func (d *dataReader) add(h *tar.Header, e image.Entry) error {
	if e.Path == "." {
		if e.Type != image.Dir {
			return d.hostile(h, "replaces the root directory")
		}
		return nil
	}
	if i, ok := d.seen[e.Path]; ok {
		if e.Type == image.Dir && d.entries[i].Type == image.Dir {
			return nil
		}
		return d.hostile(h, "stands twice")
	}
	d.seen[e.Path] = len(d.entries)
	d.entries = append(d.entries, e)
	return nil
}

// throughLink returns the first parent of p that is not a directory here.
func (d *dataReader) throughLink(p string) string {
	for up := path.Dir(p); up != "."; up = path.Dir(up) {
		if i, ok := d.seen[up]; ok && d.entries[i].Type != image.Dir {
			return up
		}
	}
	return ""
}

// memberPath makes a tar name relative and clean, or says what is wrong with it.
func memberPath(name string) (p, why string) {
	switch {
	case strings.HasPrefix(name, "/"):
		return "", "has an absolute path"
	case !plain(name):
		return "", "has a name that is not UTF-8 or has control characters"
	case len(name) > maxPathBytes:
		return "", "has a path that is too long"
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", "leaves the root by .."
		}
		if len(part) > maxNameBytes {
			return "", "has a name that is too long"
		}
	}
	return path.Clean(name), ""
}

// plain says whether a name is UTF-8 without control characters.
func plain(name string) bool {
	for i := 0; i < len(name); i++ {
		if name[i] < 0x20 || name[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(name)
}
