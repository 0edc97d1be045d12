package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"github.com/erofs/go-erofs"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// maxImage bounds the metadata images that are read into memory: about three
// million files.
const maxImage = 512 << 20 // bytes

// Read gives the tree that a seal stands for, without mounting it. The image's
// bytes are checked against the seal before anything in them is believed.
func Read(s *object.Store, seal digest.Digest) (image.Tree, error) {
	b, err := s.ReadAll(seal, maxImage)
	if err != nil {
		return image.Tree{}, fmt.Errorf("read seal: %w", err)
	}
	return decode(b)
}

// decode parses a metadata image. A panic of the parser, which can be had with a
// crafted image, is an error here and nowhere else.
func decode(b []byte) (t image.Tree, err error) {
	defer func() {
		if v := recover(); v != nil {
			t, err = image.Tree{}, notASeal(fmt.Errorf("%v", v))
		}
	}()
	img, err := erofs.Open(bytes.NewReader(b))
	if err != nil {
		return image.Tree{}, notASeal(err)
	}
	d := decoder{img: img, left: len(b) / direntSize, pathBytes: maxPaths, seen: map[int64]bool{}}
	root, err := fs.Stat(img, ".")
	if err != nil {
		return image.Tree{}, notASeal(err)
	}
	if err := d.add(".", root); err != nil {
		return image.Tree{}, notASeal(err)
	}
	t = image.Sorted(d.entries)
	if err := t.Validate(); err != nil {
		return image.Tree{}, notASeal(err)
	}
	return t, nil
}

func notASeal(err error) error {
	return fault.New(fault.Refused, "the object is not a sealed tree: %w", err)
}

const (
	direntSize = 12        // bytes that a directory entry takes in the image at least
	maxPaths   = 256 << 20 // bytes of all paths together
	maxPath    = 4095      // bytes of one path; also bounds the depth
)

// decoder walks an image. Its bounds keep a crafted one, whose directories
// contain each other or share their blocks, from costing more than its size.
type decoder struct {
	img       fs.FS
	left      int            // entries that may still come
	pathBytes int            // bytes of paths that may still come
	seen      map[int64]bool // inodes of directories
	entries   []image.Entry
}

var errTooMuch = errors.New("it holds more than its size allows")

func (d *decoder) add(p string, info fs.FileInfo) error {
	d.left--
	d.pathBytes -= len(p)
	if d.left < 0 || d.pathBytes < 0 || len(p) > maxPath {
		return errTooMuch
	}
	e, err := d.entry(p, info)
	if err != nil {
		return fmt.Errorf("%q: %w", p, err)
	}
	d.entries = append(d.entries, e)
	if e.Type != image.Dir {
		return nil
	}
	inode := info.Sys().(*erofs.Stat).Ino // entry has checked the type
	if d.seen[inode] {
		return fmt.Errorf("%q: the directory is in two places", p)
	}
	d.seen[inode] = true
	children, err := fs.ReadDir(d.img, p)
	if err != nil {
		return fmt.Errorf("%q: %w", p, err)
	}
	for _, c := range children {
		if c.Name() == "" || strings.Contains(c.Name(), "/") {
			return fmt.Errorf("%q holds the name %q", p, c.Name())
		}
		info, err := c.Info()
		if err != nil {
			return fmt.Errorf("%q: %w", path.Join(p, c.Name()), err)
		}
		if err := d.add(path.Join(p, c.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) entry(p string, info fs.FileInfo) (image.Entry, error) {
	st, ok := info.Sys().(*erofs.Stat)
	if !ok || st.Mtime > math.MaxInt64 || st.MtimeNs != 0 {
		return image.Entry{}, errors.New("it has metadata that no sealed tree has")
	}
	e := image.Entry{Path: p, Mode: permissions(st.Mode), UID: int(st.UID), GID: int(st.GID), MTime: int64(st.Mtime)}
	attrs := st.Xattrs
	var err error
	switch {
	case st.Mode.Type() != info.Mode().Type() && p != ".":
		return image.Entry{}, errors.New("its directory and its inode disagree about its type")
	case st.Mode.IsDir():
		e.Type = image.Dir
	case st.Mode.Type() == fs.ModeSymlink:
		e.Type = image.Symlink
		e.Link, err = fs.ReadLink(d.img, p)
	case st.Mode.IsRegular():
		e.Type, e.Size = image.File, st.Size
		e.Digest, err = takeDigest(st.Size, attrs)
	default:
		err = fmt.Errorf("type %v has no place in a sealed tree", st.Mode.Type())
	}
	if len(attrs) > 0 {
		e.Xattrs = attrs
	}
	return e, err
}

// takeDigest removes the attributes that say where a file's bytes are.
func takeDigest(size int64, attrs map[string]string) (digest.Digest, error) {
	if size == 0 {
		return digest.FromBytes(nil), nil
	}
	meta, hasMeta := attrs[metacopyAttr]
	redirect := attrs[redirectAttr]
	delete(attrs, metacopyAttr)
	delete(attrs, redirectAttr)
	d := digest.NewDigestFromEncoded(digest.SHA256, strings.ReplaceAll(redirect, "/", ""))
	rel, err := object.Rel(d)
	if err != nil || "/"+rel != redirect || !hasMeta || meta != "" {
		return "", fmt.Errorf("%q does not name an object", redirect)
	}
	return d, nil
}

func permissions(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, flag := range setBits {
		if m&flag != 0 {
			mode |= bit
		}
	}
	return mode
}
