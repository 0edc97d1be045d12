package oci

import (
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// node is a file or a directory of the tree that layers are laid into.
type node struct {
	entry    image.Entry
	children map[string]*node // of a directory
}

// stack is the tree that the layers so far make.
type stack struct{ root *node }

func newStack() *stack {
	return &stack{&node{entry: image.Entry{Path: ".", Type: image.Dir, Mode: 0o755}}}
}

// apply lays a layer over those before it: what it hides goes first, then its entries
// come. A file in the place of a directory takes away what was in it.
func (s *stack) apply(l layer) error {
	links, err := s.linked(l.links) // as the layers below have them
	if err != nil {
		return err
	}
	for _, p := range l.opaque {
		if n, err := s.find(p); err != nil {
			return err
		} else if n != nil {
			n.children = nil
		}
	}
	for _, p := range l.removed {
		dir, err := s.find(path.Dir(p))
		if err != nil {
			return err
		}
		if dir != nil {
			delete(dir.children, path.Base(p))
		}
	}
	for _, e := range append(slices.Clone(l.entries), links...) {
		if err := s.put(e); err != nil {
			return err
		}
	}
	return nil
}

// linked gives entries that have the contents of files of the layers below.
func (s *stack) linked(links []hardLink) ([]image.Entry, error) {
	var out []image.Entry
	for _, l := range links {
		dir, err := s.find(path.Dir(l.Target))
		if err != nil {
			return nil, err
		}
		var to *node
		if dir != nil {
			to = dir.children[path.Base(l.Target)]
		}
		if to == nil || to.entry.Type == image.Dir {
			return nil, refused("entry %s is a hard link to %s, which is no file of the image", clip(l.Path), clip(l.Target))
		}
		e := to.entry
		e.Path = l.Path
		out = append(out, e)
	}
	return out, nil
}

func (s *stack) put(e image.Entry) error {
	if e.Path == "." {
		s.root.entry = e
		return nil
	}
	dir, err := s.walk(path.Dir(e.Path), true)
	if err != nil {
		return err
	}
	name := path.Base(e.Path)
	n := dir.children[name]
	if n == nil || n.entry.Type != image.Dir || e.Type != image.Dir {
		n = &node{}
		dir.child(name, n)
	}
	n.entry = e
	return nil
}

// find gives the directory that a path leads to, nil if there is none.
func (s *stack) find(p string) (*node, error) { return s.walk(p, false) }

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// walk goes down a path of directories. Symbolic links of lower layers are followed as
// a process whose root this is would follow them, except that none may climb over the
// root. With create, what is missing is made: 0755, root's.
func (s *stack) walk(p string, create bool) (*node, error) {
	at := []*node{s.root}
	rest := strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(at) == 1 {
				return nil, refused("%s leads out of the root through a symbolic link", clip(p))
			}
			at = at[:len(at)-1]
			continue
		}
		dir := at[len(at)-1]
		n := dir.children[name]
		if n == nil && !create {
			return nil, nil
		}
		if n == nil {
			n = &node{entry: image.Entry{Type: image.Dir, Mode: 0o755}}
			dir.child(name, n)
		}
		switch n.entry.Type {
		case image.Symlink:
			if links++; links > maxLinks {
				return nil, refused("%s leads through more than %d symbolic links", clip(p), maxLinks)
			}
			if strings.HasPrefix(n.entry.Link, "/") {
				at = at[:1]
			}
			rest = append(strings.Split(n.entry.Link, "/"), rest...)
		case image.Dir:
			at = append(at, n)
		default:
			if !create {
				return nil, nil
			}
			return nil, refused("%s leads through %s, which is a file of a layer below", clip(p), clip(name))
		}
	}
	return at[len(at)-1], nil
}

func (n *node) child(name string, c *node) {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[name] = c
}

// tree gives the tree that the layers made.
func (s *stack) tree() (image.Tree, error) {
	var out []image.Entry
	var walk func(n *node, p string) error
	walk = func(n *node, p string) error {
		if len(out) == maxEntries {
			return refused("the image has more than %d entries", maxEntries)
		}
		n.entry.Path = p
		out = append(out, n.entry)
		for name, c := range n.children {
			at := name
			if p != "." {
				at = p + "/" + name
			}
			if err := walk(c, at); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(s.root, "."); err != nil {
		return image.Tree{}, err
	}
	t := image.Sorted(out)
	if err := t.Validate(); err != nil {
		return image.Tree{}, refused("the image's files are no tree: %w", err)
	}
	return t, nil
}
