package definition

import (
	"path"
	"slices"
	"strings"
	"time"
)

// sources converts what a component is built from.
func (c *converter) sources(component string, n *node) []Source {
	if n == nil {
		return nil
	}
	var out []Source
	for _, item := range n.items {
		s := Source{Where: c.f.src.where(item.at)}
		if v := item.get("go"); v != nil {
			s.Go = c.goSource(component, v)
		}
		if v := item.get("files"); v != nil {
			s.Files = c.filesSource(v)
		}
		if v := item.get("debian"); v != nil {
			s.Debian = c.debianSource(v)
		}
		if v := item.get("image"); v != nil {
			s.Image = &ImageSource{Path: c.text(v.get("path")), Tag: c.text(v.get("tag")), Digest: c.text(v.get("digest"))}
		}
		if v := item.get("dockerfile"); v != nil {
			v = c.s.fill(v, c.s.root.Defs.get("dockerfile"))
			s.Docker = &DockerSource{Context: c.relative(v.get("context")), File: c.relative(v.get("file")), Target: c.text(v.get("target")), Args: c.textMap(v.get("args"))}
		}
		out = append(out, s)
	}
	return out
}

// hasImage says that a component is built from an image, which says how to run it.
func hasImage(part *node) bool {
	return slices.ContainsFunc(items(part.get("build")), func(item *node) bool { return item.get("image") != nil || item.get("dockerfile") != nil })
}

func (c *converter) goSource(component string, n *node) *GoSource {
	n = c.s.fill(n, c.s.root.Defs.get("go"))
	to := c.absolute(n.get("to"))
	if to == "" {
		to = "/usr/bin/" + component
	}
	if strings.HasSuffix(to, "/") {
		c.f.add(n.get("to").at, []string{"want:  the path of the executable, not of its directory"}, "write  to: "+to+component, "to %q ends in a slash", short(to))
	}
	return &GoSource{Package: c.text(n.get("package")), To: to, Tags: c.texts(n.get("tags")), LDFlags: c.texts(n.get("ldflags"))}
}

func (c *converter) filesSource(n *node) *FilesSource {
	n = c.s.fill(n, c.s.root.Defs.get("filesSource"))
	out := &FilesSource{From: c.globs(n.get("from")), Base: c.relative(n.get("base")), To: c.absolute(n.get("to")), Exclude: c.globs(n.get("exclude"))}
	if out.Base != "" {
		c.within(n, out)
	}
	if mode := n.get("mode"); usable(mode) {
		m := c.mode(mode)
		out.Mode = &m
	}
	out.UID, out.GID = c.owner(n.get("owner"))
	return out
}

// within checks that base is a part of every glob.
func (c *converter) within(n *node, s *FilesSource) {
	for _, glob := range s.From {
		dir := globBase(glob)
		if s.Base == "." || glob == "" || dir == s.Base || strings.HasPrefix(dir, s.Base+"/") {
			continue
		}
		c.f.add(n.get("base").at, []string{"want:  a directory that every glob of from begins with"}, "write it like  base: "+quoteIfNeeded(dir),
			"base %q is not a part of %q", short(s.Base), short(glob))
	}
}

// globs converts one glob or a list of them.
func (c *converter) globs(n *node) []string {
	if n == nil {
		return nil
	}
	list := n.items
	if n.scalar() {
		list = []*node{n}
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		glob := c.relative(item)
		if _, err := path.Match(glob, ""); err != nil {
			c.f.add(item.at, nil, `close the [, or write \[ for the character itself`, "glob %q is not complete", short(glob))
		}
		out = append(out, glob)
	}
	return out
}

// globBase gives the directories of a glob before its first wildcard, "." for
// none: what is cut off a match when FilesSource.Base is empty. For a plain path it is
// the directory of the file.
func globBase(glob string) string {
	parts := strings.Split(glob, "/")
	for i, part := range parts {
		if strings.ContainsAny(part, `*?[\`) || i == len(parts)-1 {
			return path.Clean(strings.Join(parts[:i], "/"))
		}
	}
	return "."
}

func (c *converter) debianSource(n *node) *DebianSource {
	n = c.s.fill(n, c.s.root.Defs.get("debian"))
	return &DebianSource{
		Suite:      c.text(n.get("suite")),
		Archive:    c.text(n.get("archive")),
		Components: c.texts(n.get("areas")),
		Packages:   c.texts(n.get("packages")),
		Exclude:    c.texts(n.get("exclude")),
		Waive:      c.textMap(n.get("waive")),
		Minimise:   c.minimise(n.get("minimise")),
	}
}

func (c *converter) minimise(n *node) *Minimise {
	if n == nil {
		return nil
	}
	n = c.s.fill(n, c.s.root.Defs.get("minimise"))
	m := &Minimise{Test: c.texts(n.get("test")), Timeout: c.duration(n.get("timeout"), time.Millisecond)}
	if test := n.get("test"); test != nil && len(m.Test) > 0 && !strings.HasPrefix(m.Test[0], "/") {
		c.f.add(test.items[0].at, []string{"want:  the path of a program in the artifact"}, "write it like  [/usr/bin/"+path.Base(m.Test[0])+", …]",
			"the run test %q is not an absolute path", short(m.Test[0]))
	}
	for _, item := range items(n.get("keep")) {
		glob := c.absolute(item)
		if _, err := path.Match(glob, ""); err != nil {
			c.f.add(item.at, nil, `close the [, or write \[ for the character itself`, "glob %q is not complete", short(glob))
		}
		m.Keep = append(m.Keep, strings.TrimPrefix(glob, "/"))
	}
	return m
}
