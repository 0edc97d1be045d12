package definition

import (
	"strings"
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
