package definition

import (
	"path"
	"slices"
	"strings"
	"time"
)

// converter turns checked nodes into the types of this package. It skips what is
// broken already, and reports what no schema can express.
type converter struct {
	f      *faults
	s      schemas
	files  Files
	loaded map[string]loaded // by name: config files read so far
}

func (c *converter) definition(root *node) *Definition {
	def := &Definition{App: c.text(root.get("app"))}
	parts := root.get("components")
	if parts == nil || parts.kind != kindMap {
		parts = &node{kind: kindMap, broken: true}
	}
	for _, p := range parts.pairs {
		c.refuseNulls(p.val.get("run"), c.s.root.Defs.get("run"))
		c.refuseNulls(p.val.get("route"), c.s.root.Defs.get("route"))
		run, route := c.merged(p, nil, nil)
		def.Components = append(def.Components, Component{
			Name:     p.key,
			Build:    c.sources(p.key, p.val.get("build")),
			Settings: c.settings(run, route),
		})
	}
	envs := root.get("environments")
	if envs == nil || envs.kind != kindMap {
		return def
	}
	k := &checker{c: c}
	for _, p := range envs.pairs {
		if p.val.kind == kindMap {
			def.Environments = append(def.Environments, c.environment(p, parts, k))
		}
	}
	k.report()
	return def
}

func (c *converter) environment(env pair, parts *node, k *checker) Environment {
	overrides := env.val.get("components") // without defaults: those would override
	n := c.s.fill(env.val.without("components"), c.s.root.Defs.get("environment"))
	out := Environment{
		Name:       env.key,
		Platform:   c.text(n.get("platform")),
		Strategy:   c.text(n.get("strategy")),
		Listen:     c.listen(n.get("listen")),
		Keep:       c.number(n.get("keep")),
		Components: map[string]Settings{},
	}
	if overrides != nil && !parts.broken {
		for _, p := range overrides.pairs {
			if parts.get(p.key) == nil {
				c.unknownComponent(env.key, p, parts)
			}
		}
	}
	k.begin(env.key)
	for _, p := range parts.pairs {
		over := overrides.get(p.key)
		run, route := c.merged(p, over, n.get("replicas"))
		out.Components[p.key] = c.settings(run, route)
		k.component(p, run, route)
	}
	return out
}

func (c *converter) unknownComponent(env string, p pair, parts *node) {
	var known []string
	for _, part := range parts.pairs {
		known = append(known, part.key)
	}
	fix := "remove it, or add the component to the top-level components"
	if near := nearest(p.key, known); near != "" {
		fix = "write  " + near + ":"
	}
	c.f.add(p.at, []string{"known: " + strings.Join(known, ", ")}, fix, "environment %s overrides an unknown component %q", env, short(p.key))
}

// merged gives the run and route settings of a component with an override and an
// environment's replicas laid over them and the defaults filled in. The route is nil
// when there is none.
func (c *converter) merged(part pair, over, replicas *node) (run, route *node) {
	run = part.val.get("run")
	if run == nil || run.kind != kindMap {
		run = &node{kind: kindMap, at: part.at, label: nodeLabel{key: "run"}, broken: run != nil || part.val.broken}
	}
	if replicas != nil && replicas.kind == kindInt {
		run = run.with(pair{"replicas", replicas.at, replicas})
	}
	if o := over.get("run"); o != nil && o.kind == kindMap {
		run = merge(run, o)
	} else {
		run = prune(run)
	}
	run = c.s.fill(run, c.s.root.Defs.get("run"))
	route = part.val.get("route")
	if o := over.get("route"); o != nil {
		route = merge(route, o)
	}
	if route == nil || route.kind != kindMap {
		return run, nil
	}
	return run, c.s.fill(prune(route), c.s.root.Defs.get("route"))
}

// refuseNulls reports keys without a value in a component, where there is nothing
// that null could take away.
func (c *converter) refuseNulls(n *node, r *rule) {
	r = c.s.resolve(r)
	switch {
	case n == nil || r == nil:
	case n.kind == kindNull && !n.broken:
		noValue(c.f, n, r, false)
	case n.kind == kindMap:
		for _, p := range n.pairs {
			c.refuseNulls(p.val, c.s.child(r, p.key))
		}
	}
}

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
