package definition

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
)

// volumes gives the volumes of an environment with defaults: those of the
// definition with the environment's own laid over them.
func (c *converter) volumes(declared *node, env pair) *node {
	over := env.val.get("volumes")
	if declared == nil || declared.kind != kindMap {
		declared = &node{kind: kindMap, at: env.at, broken: declared != nil}
	}
	if over != nil && over.kind == kindMap && !declared.broken {
		for _, p := range over.pairs {
			if declared.get(p.key) == nil {
				over = over.without(p.key)
				c.f.add(p.at, known(declared), mendName(p.key, declared, "declare it under the top-level  volumes:"), "environment %s says something of an unknown volume %q", short(env.key), short(p.key))
			}
		}
		declared = merge(declared, over)
	}
	return c.s.fill(declared, c.s.root.Properties.get("volumes"))
}

func (c *converter) declared(volumes *node) map[string]release.Volume {
	if len(volumes.pairs) == 0 {
		return nil
	}
	out := map[string]release.Volume{}
	for _, p := range volumes.pairs {
		v := release.Volume{Mode: c.text(p.val.get("mode")), Snapshot: c.flag(p.val.get("snapshot"))}
		if v.Mode == release.VolumeShared && v.Snapshot {
			c.f.add(p.at, []string{"want:  snapshot with mode exclusive"}, "remove snapshot, or write  mode: exclusive", "volume %s is shared: there is no hand-over before which a snapshot could be taken", short(p.key))
		}
		out[p.key] = v
	}
	return out
}

func (c *converter) mounts(n *node) []release.Mount {
	if n == nil {
		return nil
	}
	var out []release.Mount
	for _, p := range n.pairs {
		out = append(out, release.Mount{Volume: p.key, Path: c.absolute(p.val.get("path")), ReadOnly: c.flag(p.val.get("readonly"))})
	}
	slices.SortFunc(out, func(a, b release.Mount) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// secretsDir is where secrets are found that say nothing else.
const secretsDir = "/run/secrets"

func (c *converter) secrets(n *node) []release.Secret {
	if n == nil {
		return nil
	}
	var out []release.Secret
	for _, p := range n.pairs {
		s := release.Secret{Name: p.key, Path: secretsDir + "/" + p.key, Env: c.text(p.val.get("env"))}
		if path := c.absolute(p.val.get("path")); path != "" {
			s.Path = path
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b release.Secret) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (c *converter) route(n *node) *Route {
	if n == nil {
		return nil
	}
	out := &Route{TCP: c.number(n.get("tcp")), Hold: c.duration(n.get("hold"), 0), Drains: c.drains(n.get("drains"))}
	if out.TCP != 0 {
		out.Listen = c.listen(n.get("listen"))
		return out
	}
	out.Host, out.Path = c.text(n.get("host")), c.text(n.get("path"))
	return out
}

func (c *converter) drains(n *node) *release.Drains {
	if n == nil || len(n.pairs) == 0 {
		return nil
	}
	ms := func(key string) int64 { return c.duration(n.get(key), time.Millisecond).Milliseconds() }
	return &release.Drains{RequestMS: ms("request"), WebSocketMS: ms("websocket"), StreamMS: ms("stream"), GRPCMS: ms("grpc"), TCPMS: ms("tcp")}
}

func (c *converter) hooks(n *node) []release.Hook {
	var out []release.Hook
	for _, when := range []string{release.HookBefore, release.HookAfter, release.HookRollback} {
		if h := n.get(when); h != nil && h.kind == kindMap {
			out = append(out, release.Hook{When: when, Command: c.texts(h.get("command")), TimeoutMS: c.duration(h.get("timeout"), time.Second).Milliseconds()})
		}
	}
	return out
}

func (c *converter) dataSchemas(n *node) []release.DataSchema {
	if n == nil {
		return nil
	}
	var out []release.DataSchema
	for _, p := range n.pairs {
		d := release.DataSchema{Name: p.key, Writes: c.number(p.val.get("writes")), Leaves: c.number(p.val.get("leaves"))}
		d.Reads = c.versions(p.val.get("reads"), d.Writes)
		if !p.val.broken && d.Leaves != 0 && (d.Leaves < d.Reads.Min || d.Leaves > d.Reads.Max) {
			c.f.add(p.val.get("leaves").at, []string{"want:  a version that the program reads"}, "mend reads or leaves", "schema %s: the program could not read version %d, which its own migration leaves", short(p.key), d.Leaves)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b release.DataSchema) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// versions converts one version or a range of them; without any it is the one given.
func (c *converter) versions(n *node, otherwise int) release.Range {
	switch {
	case !usable(n):
		return release.Range{Min: otherwise, Max: otherwise}
	case n.kind != kindText:
		v := c.number(n)
		return release.Range{Min: v, Max: v}
	}
	low, high, both := strings.Cut(n.raw, "-")
	if !both {
		high = low
	}
	out := release.Range{Min: atoi(low), Max: atoi(high)}
	if out.Min > out.Max {
		c.f.add(n.at, []string{"want:  the lower version first"}, "write  reads: "+high+"-"+low, "reads %s is no range", n.raw)
	}
	return out
}

// atoi reads digits that the schema has checked.
func atoi(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return math.MaxInt32
	}
	return n
}

func number(n int) string { return strconv.Itoa(n) }
