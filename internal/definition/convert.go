package definition

import (
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/release"
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
	for _, p := range c.texts(root.get("platforms")) {
		def.Platforms = append(def.Platforms, strings.TrimPrefix(p, "linux/"))
	}
	parts := root.get("components")
	if parts == nil || parts.kind != kindMap {
		parts = &node{kind: kindMap, broken: true}
	}
	for _, p := range parts.pairs {
		c.refuseNulls(p.val.get("run"), c.s.root.Defs.get("run"))
		c.refuseNulls(p.val.get("route"), c.s.root.Defs.get("route"))
		c.refuseNulls(p.val.get("hooks"), c.s.root.Defs.get("hooks"))
		c.refuseNulls(p.val.get("schedule"), c.s.root.Defs.get("schedule"))
		def.Components = append(def.Components, Component{
			Name:     p.key,
			Kind:     c.kind(p),
			Needs:    sorted(c.texts(p.val.get("needs"))),
			Schemas:  c.dataSchemas(p.val.get("schemas")),
			Build:    c.sources(p.key, p.val.get("build")),
			Settings: c.settings(c.merged(p, nil, nil)),
		})
	}
	c.needs(parts)
	envs := root.get("environments")
	if envs == nil || envs.kind != kindMap {
		return def
	}
	k := &checker{c: c}
	for _, p := range envs.pairs {
		if p.val.kind == kindMap {
			def.Environments = append(def.Environments, c.environment(p, parts, root.get("volumes"), k))
		}
	}
	k.report()
	return def
}

func (c *converter) environment(env pair, parts, volumes *node, k *checker) Environment {
	overrides := env.val.get("components") // without defaults: those would override
	volumes = c.volumes(volumes, env)
	n := c.s.fill(env.val.without("components").without("volumes"), c.s.root.Defs.get("environment"))
	out := Environment{
		Name:       env.key,
		Platform:   c.text(n.get("platform")),
		Rollout:    c.rollout(n),
		Listen:     c.listen(n.get("listen")),
		TLS:        c.tls(n.get("tls")),
		Keep:       c.number(n.get("keep")),
		Events:     c.events(n.get("events")),
		Volumes:    c.declared(volumes),
		Components: map[string]Settings{},
	}
	if overrides != nil && !parts.broken {
		for _, p := range overrides.pairs {
			if parts.get(p.key) == nil {
				c.unknownComponent(env.key, p, parts)
			}
		}
	}
	k.begin(env.key, n.get("listen"), volumes)
	for _, p := range parts.pairs {
		m := c.merged(p, overrides.get(p.key), n.get("replicas"))
		m = c.single(p, overrides.get(p.key), m, out.Volumes)
		s := c.settings(m)
		for i := range s.Volumes {
			v := out.Volumes[s.Volumes[i].Volume]
			s.Volumes[i].Mode, s.Volumes[i].Snapshot = v.Mode, v.Snapshot
		}
		out.Components[p.key] = s
		k.component(p, m)
		if r := s.Route; r != nil && r.Host != "" && r.Host == out.Rollout.Preview {
			c.f.add(n.get("strategy").at, []string{"want:  a host of its own"}, "choose another host for preview", "the preview host %s is that of component %s", short(r.Host), short(p.key))
		}
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

// parts are the settings of a component that an environment may override.
type parts struct {
	run      *node
	route    *node // nil: none
	hooks    *node // nil: none
	schedule *node // nil: none
	image    bool  // an image tells what run does not
}

// merged gives the settings of a component with an override and an environment's
// replicas laid over them and the defaults filled in.
func (c *converter) merged(part pair, over, replicas *node) parts {
	run := part.val.get("run")
	if run == nil || run.kind != kindMap {
		run = &node{kind: kindMap, at: part.at, label: nodeLabel{key: "run"}, broken: run != nil || part.val.broken}
	}
	if replicas != nil && replicas.kind == kindInt {
		run = run.with(pair{"replicas", replicas.at, replicas})
	}
	run = spelled(run)
	if o := over.get("run"); o != nil && o.kind == kindMap {
		run = merge(run, spelled(o))
	} else {
		run = prune(run)
	}
	return parts{
		run:      c.s.fill(run, c.s.root.Defs.get("run")),
		route:    c.overridden("route", part.val, over),
		hooks:    c.overridden("hooks", part.val, over),
		schedule: override(part.val.get("schedule"), over.get("schedule")),
		image:    hasImage(part.val),
	}
}

// overridden merges a map that may be absent, and fills in its defaults.
func (c *converter) overridden(key string, part, over *node) *node {
	n := override(part.get(key), over.get(key))
	if n == nil || n.kind != kindMap {
		return nil
	}
	return c.s.fill(prune(n), c.s.root.Defs.get(key))
}

// override lays what an environment says over a value; nil when nothing is left.
func override(base, over *node) *node {
	if over != nil {
		base = merge(base, over)
	}
	if base == nil || base.kind == kindNull {
		return nil
	}
	return base
}

// spelled gives run settings in which a volume that is a path alone is the map that it
// stands for, so that an override can be laid over either.
func spelled(run *node) *node {
	volumes := run.get("volumes")
	if volumes == nil || volumes.kind != kindMap {
		return run
	}
	out := *volumes
	out.pairs = make([]pair, len(volumes.pairs))
	for i, p := range volumes.pairs {
		if p.val.kind == kindText {
			path := *p.val
			path.label = nodeLabel{key: "path"}
			p.val = &node{kind: kindMap, at: p.val.at, label: p.val.label, broken: p.val.broken, pairs: []pair{{"path", p.at, &path}}}
		}
		out.pairs[i] = p
	}
	return run.with(pair{"volumes", volumes.at, &out})
}

// single takes an environment's replicas back from a component of which there is
// one instance at most.
func (c *converter) single(part pair, over *node, m parts, volumes map[string]release.Volume) parts {
	if over.get("run").get("replicas") != nil || !c.only(part, m.run, volumes) {
		return m
	}
	own := c.merged(part, over, nil)
	m.run = own.run
	return m
}

// only says that there may be no more than one instance of a component.
func (c *converter) only(part pair, run *node, volumes map[string]release.Volume) bool {
	if kind := c.kind(part); kind == release.KindSingleton || kind == release.KindJob {
		return true
	}
	held := run.get("volumes")
	return held != nil && slices.ContainsFunc(held.pairs, func(p pair) bool { return volumes[p.key].Mode == release.VolumeExclusive })
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
