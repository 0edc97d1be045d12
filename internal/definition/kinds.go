package definition

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/gate"
	"github.com/ashlar-infra/ashlar/internal/release"
)

func (c *converter) kind(part pair) string {
	if kind := c.text(part.val.get("kind")); kind != "" {
		return kind
	}
	return release.KindService
}

// schedule gives the fields of a schedule, separated by one space.
func (c *converter) schedule(n *node) string {
	if !usable(n) {
		return ""
	}
	if _, err := gate.ParseSchedule(n.raw); err != nil {
		f := fault.Of(err)
		c.f.add(n.at, []string{"want:  minute, hour, day of the month, month and day of the week, as crontab(5) has them, in UTC"}, f.Fix, "%s", f.What)
	}
	return strings.Join(strings.Fields(n.raw), " ")
}

// known lists the keys of a map for a message.
func known(n *node) []string {
	var names []string
	for _, p := range n.pairs {
		names = append(names, p.key)
	}
	if len(names) == 0 {
		return []string{"known: none"}
	}
	return []string{"known: " + strings.Join(names, ", ")}
}

// mendName says which key of a map was probably meant, or what else to do.
func mendName(name string, n *node, otherwise string) string {
	var names []string
	for _, p := range n.pairs {
		names = append(names, p.key)
	}
	if near := nearest(name, names); near != "" {
		return "write  " + near
	}
	return "remove it, or " + otherwise
}

// needs checks that components need what is there, and not in a circle.
func (c *converter) needs(parts *node) {
	if parts.broken {
		return
	}
	for _, p := range parts.pairs {
		for _, item := range items(p.val.get("needs")) {
			switch {
			case !usable(item):
			case item.raw == p.key:
				c.f.add(item.at, nil, "remove it", "component %s needs itself", short(p.key))
			case parts.get(item.raw) == nil:
				c.f.add(item.at, known(parts), mendName(item.raw, parts, "add the component"), "component %s needs an unknown component %q", short(p.key), short(item.raw))
			}
		}
	}
	w := walk{c: c, parts: parts, state: map[string]int{}}
	for _, p := range parts.pairs {
		w.visit(p.key)
	}
}

// walk looks for circles, each of which it reports once.
type walk struct {
	c     *converter
	parts *node
	path  []string
	state map[string]int // 1: on the path; 2: done
}

func (w *walk) visit(name string) {
	if w.state[name] == 2 {
		return
	}
	w.state[name] = 1
	w.path = append(w.path, name)
	for _, item := range items(w.parts.get(name).get("needs")) {
		switch {
		case !usable(item) || item.raw == name || w.parts.get(item.raw) == nil:
		case w.state[item.raw] == 1:
			circle := append(slices.Clone(w.path[slices.Index(w.path, item.raw):]), item.raw)
			w.c.f.add(item.at, []string{"want:  an order in which each is replaced after what it needs"}, "remove one of these needs", "components need each other in a circle: %s", strings.Join(circle, " needs "))
		default:
			w.visit(item.raw)
		}
	}
	w.path = w.path[:len(w.path)-1]
	w.state[name] = 2
}

// items gives the items of a list, none if it is not one.
func items(n *node) []*node {
	if n == nil || n.kind != kindList {
		return nil
	}
	return n.items
}

// kind checks that a component has what its kind needs, and nothing that it must not
// have.
func (k *checker) kind(part pair, m parts) {
	if n := part.val.get("kind"); n != nil && n.broken {
		return
	}
	kind, name := k.c.kind(part), short(part.key)
	if m.route != nil && kind != release.KindService {
		k.add(m.route.at, []string{"want:  a route of a service alone"}, "remove it, or write  kind: service", "component "+name+" is a "+kind+", which gets no requests, but has a route")
	}
	switch {
	case kind == release.KindJob && m.schedule == nil && !part.val.holes:
		k.add(part.at, []string{"want:  the times at which the job runs"}, `add  schedule: "*/15 * * * *"`, "job "+name+" has no schedule")
	case kind != release.KindJob && m.schedule != nil:
		k.add(m.schedule.at, nil, "remove it, or write  kind: job", "component "+name+" is a "+kind+", which runs all the time, but has a schedule")
	}
	replicas := m.run.get("replicas")
	if replicas.kind != kindInt || k.c.number(replicas) <= 1 {
		return
	}
	if kind == release.KindSingleton || kind == release.KindJob {
		k.add(replicas.at, []string{"want:  1"}, "remove it", "component "+name+" is a "+kind+", of which one runs at a time, but has "+replicas.raw+" replicas")
	}
	for _, p := range pairs(m.run.get("volumes")) {
		if k.c.text(k.volumes.get(p.key).get("mode")) == release.VolumeExclusive {
			k.add(replicas.at, []string{"want:  1"}, "remove it, or write  mode: shared  at the volume", "volume "+short(p.key)+" is exclusive, but component "+name+" has "+replicas.raw+" replicas")
		}
	}
}

// volumesOf checks that the volumes of a component are declared and that nobody
// else holds an exclusive one.
func (k *checker) volumesOf(component string, run *node) {
	for _, p := range pairs(run.get("volumes")) {
		declared := k.volumes.get(p.key)
		if declared == nil {
			if !k.volumes.broken {
				k.add(p.at, known(k.volumes), mendName(p.key, k.volumes, "declare it:  volumes: {"+short(p.key)+": {}}"), "component "+short(component)+" has an unknown volume "+strconv.Quote(short(p.key)))
			}
			continue
		}
		if p.val.kind == kindMap && p.val.get("path") == nil && !p.val.broken && !p.val.holes {
			k.add(p.at, []string{"want:  where the instance finds it"}, "add  path: /var/lib/"+short(p.key), "volume "+short(p.key)+" has no path")
		}
		if k.c.text(declared.get("mode")) != release.VolumeExclusive {
			continue
		}
		if other, taken := k.claim("volume "+p.key, component, p.at); taken {
			k.add(p.at, []string{"other: " + k.c.f.src.where(other.at)}, "write  mode: shared  at the volume, or give each its own",
				"components "+short(other.component)+" and "+short(component)+" have the same exclusive volume "+short(p.key))
		}
	}
}

// secrets checks that each variable has one source.
func (k *checker) secrets(run *node) {
	seen := map[string]string{}
	for _, p := range pairs(run.get("env")) {
		seen[p.key] = "env"
	}
	for _, p := range pairs(run.get("secrets")) {
		env := p.val.get("env")
		if !usable(env) {
			continue
		}
		if other := seen[env.raw]; other != "" {
			k.add(env.at, nil, "give one of them another name", "variable "+short(env.raw)+" of secret "+short(p.key)+" is in "+other+" too")
		}
		seen[env.raw] = "secret " + short(p.key)
	}
}

// hooks checks that hooks have a command and can run: an exclusive volume is held by an
// instance after the switch.
func (k *checker) hooks(n, run *node) {
	for _, p := range pairs(n) {
		for _, v := range pairs(run.get("volumes")) {
			if (p.key == release.HookAfter || p.key == release.HookRollback) && k.c.text(k.volumes.get(v.key).get("mode")) == release.VolumeExclusive {
				k.add(p.at, []string{"want:  a hook before, or a component without an exclusive volume"}, "write  before:  or let another component run it",
					"hook "+p.key+" could not have the volume "+short(v.key)+", which an instance holds then")
			}
		}
		if p.val.kind == kindMap && p.val.get("command") == nil && !p.val.broken && !p.val.holes {
			k.add(p.at, []string{"want:  a list of texts – the program and its arguments"}, "add  command: [/usr/bin/migrate]", "hook "+p.key+" has no command")
		}
	}
}
