package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/gate"
)

var (
	kinds       = []string{"", KindService, KindWorker, KindSingleton, KindJob}
	hookTimes   = []string{HookBefore, HookAfter, HookRollback}
	volumeModes = []string{VolumeExclusive, VolumeShared}
)

// checkWhole checks what concerns more than one component: who needs whom, and who
// holds what.
func (e Environment) checkWhole(c *checker, where string) {
	for _, name := range slices.Sorted(maps.Keys(e.Volumes)) {
		c.name(where+".volumes", name)
		c.oneOf(where+".volumes."+name+".mode", e.Volumes[name].Mode, volumeModes)
	}
	holders := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(e.Components)) {
		p, at := e.Components[name], where+".components."+name
		for _, need := range p.Needs {
			if _, ok := e.Components[need]; !ok {
				c.fail(at+".needs", "names %q, which is not there", need)
			}
		}
		for _, m := range p.Spec.Volumes {
			v, ok := e.Volumes[m.Volume]
			if !ok || v.Mode != m.Mode {
				c.fail(at+".spec.volumes", "has %s %s, which the environment does not declare so", m.Mode, m.Volume)
			}
			if v.Mode != VolumeExclusive {
				continue
			}
			if p.Replicas > 1 {
				c.fail(at+".replicas", "is %d; it holds the exclusive volume %s", p.Replicas, m.Volume)
			}
			if slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.When != HookBefore }) {
				c.fail(at+".hooks", "would hold the exclusive volume %s while an instance does", m.Volume)
			}
			if other := holders[m.Volume]; other != "" {
				c.fail(at+".spec.volumes", "has the exclusive volume %s, which %s has", m.Volume, other)
			}
			holders[m.Volume] = name
		}
	}
	if circle := e.circle(); circle != "" {
		c.fail(where+".components", "need each other in a circle: %s", circle)
	}
}

// circle gives the first circle of needs, in words; empty if there is none.
func (e Environment) circle() string {
	state := map[string]int{} // 1: on the path; 2: done
	var path []string
	var visit func(name string) string
	visit = func(name string) string {
		if state[name] == 1 {
			return strings.Join(append(path[slices.Index(path, name):], name), " needs ")
		}
		if state[name] == 2 {
			return ""
		}
		state[name] = 1
		path = append(path, name)
		for _, need := range e.Components[name].Needs {
			if found := visit(need); found != "" {
				return found
			}
		}
		path = path[:len(path)-1]
		state[name] = 2
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(e.Components)) {
		if found := visit(name); found != "" {
			return found
		}
	}
	return ""
}

// checkKind checks that a component has what its kind needs and nothing else.
func (p Component) checkKind(c *checker, where string) {
	c.oneOf(where+".kind", p.Kind, kinds)
	if p.Spec.Kind != "" && p.Spec.Kind != p.Kind {
		c.fail(where+".spec.kind", "is %q of a %s", p.Spec.Kind, p.kind())
	}
	if p.Route != nil && p.Kind != "" && p.Kind != KindService {
		c.fail(where+".route", "belongs to a %s, which gets no requests", p.Kind)
	}
	if (p.Kind == KindJob) != (p.Schedule != "") {
		c.fail(where+".schedule", "is %q of a %s; jobs have one, others have none", p.Schedule, p.Kind)
	}
	if p.Schedule != "" {
		if _, err := gate.ParseSchedule(p.Schedule); err != nil {
			c.fail(where+".schedule", "is %q: %s", p.Schedule, fault.Of(err).What)
		}
	}
	c.text(where+".schedule", p.Schedule)
	if (p.Kind == KindJob || p.Kind == KindSingleton) && p.Replicas > 1 {
		c.fail(where+".replicas", "is %d of a %s, of which one runs at a time", p.Replicas, p.Kind)
	}
	c.sorted(where+".needs", p.Needs)
	c.count(where+".hooks", len(p.Hooks), 0, maxHooks)
	for i, h := range p.Hooks {
		at := fmt.Sprintf("%s.hooks[%d]", where, i)
		c.oneOf(at+".when", h.When, hookTimes)
		c.count(at+".command", len(h.Command), 1, maxList)
		for _, arg := range h.Command {
			c.text(at+".command", arg)
		}
		c.between(at+".timeoutMs", h.TimeoutMS, 1, maxMilliseconds)
	}
	p.checkSchemas(c, where+".schemas")
}

func (p Component) checkSchemas(c *checker, where string) {
	c.count(where, len(p.Schemas), 0, maxList)
	var names []string
	for _, s := range p.Schemas {
		at := where + "." + s.Name
		names = append(names, s.Name)
		c.name(at, s.Name)
		c.between(at+".reads.min", int64(s.Reads.Min), 1, maxInteger)
		c.between(at+".reads.max", int64(s.Reads.Max), int64(s.Reads.Min), maxInteger)
		c.between(at+".writes", int64(s.Writes), 1, maxInteger)
		if s.Leaves != 0 {
			c.between(at+".leaves", int64(s.Leaves), int64(s.Reads.Min), int64(s.Reads.Max))
		}
	}
	c.sorted(where, names)
}

// checkState checks the volumes and secrets of a spec: sorted, each once.
func (s Spec) checkState(c *checker, where string) {
	var paths, names []string
	for i, m := range s.Volumes {
		at := fmt.Sprintf("%s.volumes[%d]", where, i)
		paths = append(paths, m.Path)
		c.path(at, m.Path)
		c.name(at, m.Volume)
		c.oneOf(at+".mode", m.Mode, volumeModes)
	}
	for i, one := range s.Secrets {
		at := fmt.Sprintf("%s.secrets[%d]", where, i)
		names = append(names, one.Name)
		c.name(at, one.Name)
		c.between(at+".version", int64(one.Version), 0, maxInteger)
		if one.Version > 0 || one.Sealed != "" {
			c.between(at+".version", int64(one.Version), 1, maxInteger)
			c.digest(at+".sealed", one.Sealed)
		}
		c.path(at+".path", one.Path)
		c.text(at+".env", one.Env)
		if _, taken := s.Env[one.Env]; taken || strings.Contains(one.Env, "=") {
			c.fail(at+".env", "is %q; it must be a variable of its own", one.Env)
		}
	}
	c.count(where+".volumes", len(s.Volumes), 0, maxList)
	c.count(where+".secrets", len(s.Secrets), 0, maxList)
	c.sorted(where+".volumes", paths)
	c.sorted(where+".secrets", names)
}

func (r Route) check(c *checker, where string, port int) {
	if port == 0 {
		c.fail(where, "routes to a component without a port")
	}
	c.between(where+".holdMs", r.HoldMS, 0, maxMilliseconds)
	c.between(where+".tcp", int64(r.TCP), 0, 65535)
	c.text(where+".listen", r.Listen)
	if d := r.Drains; d != nil {
		for _, ms := range []int64{d.RequestMS, d.WebSocketMS, d.StreamMS, d.GRPCMS, d.TCPMS} {
			c.between(where+".drains", ms, 0, maxMilliseconds)
		}
	}
	if r.TCP != 0 {
		if r.Host != "" || r.Path != "" {
			c.fail(where, "has both tcp and host or path")
		}
		return
	}
	c.text(where+".host", r.Host)
	c.text(where+".path", r.Path)
	if !strings.HasPrefix(r.Path, "/") {
		c.fail(where+".path", "is %q; it must begin with /", r.Path)
	}
	if r.Listen != "" {
		c.fail(where+".listen", "is of a tcp route alone")
	}
}

// sorted checks that a list is in order, each once.
func (c *checker) sorted(where string, list []string) {
	c.count(where, len(list), 0, maxList)
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			c.fail(where, "has %s after %s; it must be sorted, each once", list[i], list[i-1])
		}
	}
}
