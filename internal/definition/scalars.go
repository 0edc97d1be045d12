package definition

import (
	"path"
	"slices"
	"strings"
	"time"
)

// usable says that a scalar is there and nothing was wrong with it.
func usable(n *node) bool { return n != nil && !n.broken && n.scalar() && n.kind != kindNull }

func (c *converter) text(n *node) string {
	if !usable(n) {
		return ""
	}
	return n.raw
}

func (c *converter) texts(n *node) []string {
	if n == nil || n.kind != kindList {
		return nil
	}
	out := make([]string, 0, len(n.items))
	for _, item := range n.items {
		out = append(out, c.text(item))
	}
	return out
}

// textMap gives a map of texts, nil when it is empty.
func (c *converter) textMap(n *node) map[string]string {
	if n == nil || len(n.pairs) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, p := range n.pairs {
		out[p.key] = c.text(p.val)
	}
	return out
}

// number gives a whole number; one that is not in plain decimal is refused,
// because YAML versions do not agree on what it means.
func (c *converter) number(n *node) int {
	if !usable(n) {
		return 0
	}
	if n.odd || n.kind == kindNumber {
		c.f.add(n.at, []string{"want:  digits only, without a leading zero"}, "write it in plain decimal", "%s %s is not a plain decimal number", n.label, short(n.raw))
		return 0
	}
	switch v := n.value.(type) {
	case int64:
		return int(v)
	case uint64:
		return int(min(v, 1<<31-1))
	}
	return 0
}

// duration gives a duration in whole milliseconds, least at least.
func (c *converter) duration(n *node, least time.Duration) time.Duration {
	if !usable(n) {
		return 0
	}
	d, ok := parseDuration(n.raw)
	switch {
	case !ok || d < least:
		limit := "from " + least.String() + " to 24h"
		if least == 0 {
			limit = "at most 24h"
		}
		c.f.add(n.at, []string{"want:  a duration, " + limit}, example(n, c.s.root.Defs.get("duration")), "%s %s is out of range", n.label, short(n.raw))
	case d%time.Millisecond != 0:
		c.f.add(n.at, nil, "write  "+put(n, max(d.Round(time.Millisecond), time.Millisecond).String()), "%s %s is finer than a millisecond", n.label, short(n.raw))
	}
	return d
}

func (c *converter) size(n *node) int64 {
	if !usable(n) {
		return 0
	}
	b, ok := parseSize(n.raw)
	if !ok {
		c.f.add(n.at, []string{"want:  a size from 1B to 1024TiB"}, example(n, c.s.root.Defs.get("size")), "%s %s is out of range", n.label, short(n.raw))
	}
	return b
}

func (c *converter) mode(n *node) uint32 {
	if !usable(n) {
		return 0
	}
	m, ok := parseMode(n.raw)
	if !ok {
		c.f.add(n.at, []string{"want:  octal digits up to 7777"}, example(n, c.s.root.Defs.get("mode")), "%s %s is out of range", n.label, short(n.raw))
	}
	return m
}

func (c *converter) owner(n *node) (uid, gid int) {
	if !usable(n) {
		return 0, 0
	}
	if n.odd {
		c.number(n)
		return 0, 0
	}
	uid, gid, _ = parseOwner(n.raw)
	return uid, gid
}

// listen gives a host:port whose port is one.
func (c *converter) listen(n *node) string {
	text := c.text(n)
	port := text[strings.LastIndexByte(text, ':')+1:]
	if text != "" && !validPort(port) {
		c.f.add(n.at, []string{"want:  a port from 1 to 65535 after the colon"}, "write it like  "+put(n, "127.0.0.1:8080"), "listen %q has no usable port", short(text))
	}
	return text
}

func validPort(text string) bool {
	n := 0
	for _, d := range text {
		n = n*10 + int(d-'0')
	}
	return len(text) <= 5 && n >= 1 && n <= 65535
}

// relative gives a clean path below the definition's directory.
func (c *converter) relative(n *node) string {
	text := c.text(n)
	if text == "" {
		return ""
	}
	clean := path.Clean(text)
	if clean == ".." || strings.HasPrefix(clean, "../") || slices.Contains(strings.Split(text, "/"), "..") {
		c.f.add(n.at, []string{"want:  a path within the directory of the definition, so that a build is the same everywhere"},
			"move what it names into that directory", "%s %q contains ..", n.label, short(text))
		return ""
	}
	return clean
}

// absolute gives an absolute path, refusing one with "." and "..".
func (c *converter) absolute(n *node) string {
	text := c.text(n)
	if text != "" {
		c.checkPath(text, n.at)
	}
	return text
}

// checkPath reports an absolute path that is not the shortest way to say it.
func (c *converter) checkPath(text string, at span) bool {
	clean := path.Clean(text)
	if strings.HasSuffix(text, "/") && clean != "/" {
		clean += "/"
	}
	if clean == text {
		return true
	}
	c.f.add(at, nil, "write  "+clean, "path %q is not in its shortest form", short(text))
	return false
}

// flag gives true or false; false when it is absent.
func (c *converter) flag(n *node) bool {
	if !usable(n) {
		return false
	}
	v, _ := n.value.(bool)
	return v
}
