package seal

import (
	"io/fs"
	"path"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// treeFS shows a tree to go-erofs, which copies metadata from a file system.
type treeFS struct {
	nodes    map[string]*node
	children map[string][]fs.DirEntry
}

func newTreeFS(t image.Tree) (*treeFS, error) {
	f := &treeFS{nodes: make(map[string]*node, len(t.Entries)), children: map[string][]fs.DirEntry{}}
	for _, e := range t.Entries {
		attrs, err := attributes(e)
		if err != nil {
			return nil, err
		}
		n := &node{Entry: e, links: 1, xattrs: attrs}
		if e.Type == image.Dir {
			n.links = 2
		}
		f.nodes[e.Path] = n
		if e.Path == "." {
			continue
		}
		parent := path.Dir(e.Path)
		f.children[parent] = append(f.children[parent], n)
		if e.Type == image.Dir {
			f.nodes[parent].links++ // its ".."
		}
	}
	return f, nil
}

func (f *treeFS) Stat(name string) (fs.FileInfo, error) {
	n, ok := f.nodes[name]
	if !ok {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

func (f *treeFS) Lstat(name string) (fs.FileInfo, error)     { return f.Stat(name) }
func (f *treeFS) ReadDir(name string) ([]fs.DirEntry, error) { return f.children[name], nil }

func (f *treeFS) ReadLink(name string) (string, error) {
	n, ok := f.nodes[name]
	if !ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrNotExist}
	}
	return n.Link, nil
}

// Open is never needed: no file's bytes go into the image.
func (f *treeFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

// node is one entry as fs.FileInfo and fs.DirEntry.
type node struct {
	image.Entry
	links  int
	xattrs map[string]string
}

func (n *node) Name() string               { return path.Base(n.Path) }
func (n *node) Size() int64                { return n.Entry.Size }
func (n *node) ModTime() time.Time         { return time.Unix(n.MTime, 0) }
func (n *node) IsDir() bool                { return n.Entry.Type == image.Dir }
func (n *node) Type() fs.FileMode          { return n.Mode().Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

// setBits are the mode bits that Go and Unix place differently.
var setBits = map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

func (n *node) Mode() fs.FileMode {
	mode := fs.FileMode(n.Entry.Mode & 0o777)
	for bit, flag := range setBits {
		if n.Entry.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch n.Entry.Type {
	case image.Dir:
		mode |= fs.ModeDir
	case image.Symlink:
		mode |= fs.ModeSymlink
	}
	return mode
}

func (n *node) Sys() any {
	return &erofs.Stat{UID: uint32(n.UID), GID: uint32(n.GID), Mtime: uint64(n.MTime), Nlink: n.links, Xattrs: n.xattrs}
}

// noBlock is the address of every file's bytes within the image: far beyond its
// end, because they are not there.
const noBlock = 0xfffffffe * blockSize

// DataRange makes a file one contiguous piece, which takes 8 bytes of the image
// rather than 8 for every 4,096 of the file.
func (n *node) DataRange() []erofs.DataRange {
	return []erofs.DataRange{{Offset: noBlock, Size: n.Entry.Size}}
}
