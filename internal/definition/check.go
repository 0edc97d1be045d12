package definition

import (
	"strings"
)

// checker finds what does not fit together once an environment's overrides are
// merged in. What is wrong in every environment alike is said once.
type checker struct {
	c       *converter
	envs    []string
	volumes *node            // of the environment under way, with defaults
	claims  map[string]claim // of the environment under way: routes, addresses, exclusive volumes
	found   []complaint
}

// claim is a component that has something which one alone can have.
type claim struct {
	component string
	at        span
}

type complaint struct {
	at   span
	what string
	want []string
	fix  string
	envs []string
}

func (k *checker) begin(env string, listen, volumes *node) {
	k.envs = append(k.envs, env)
	k.volumes = volumes
	k.claims = map[string]claim{}
	if usable(listen) {
		k.claims["listen "+listen.raw] = claim{"", listen.at}
	}
}

// claim notes that a component has something, and says who has it already.
func (k *checker) claim(what, component string, at span) (claim, bool) {
	other, taken := k.claims[what]
	if !taken {
		k.claims[what] = claim{component, at}
	}
	return other, taken
}

// add notes a complaint about the environment under way.
func (k *checker) add(at span, want []string, fix, what string) {
	env := k.envs[len(k.envs)-1]
	for i, old := range k.found {
		if old.at == at && old.what == what {
			k.found[i].envs = append(old.envs, env)
			return
		}
	}
	k.found = append(k.found, complaint{at, what, want, fix, []string{env}})
}

// report hands the complaints over, naming the environments where they differ.
func (k *checker) report() {
	for _, one := range k.found {
		what := one.what
		if len(one.envs) < len(k.envs) {
			what += " in " + strings.Join(one.envs, " and ")
		}
		k.c.f.add(one.at, one.want, one.fix, "%s", what)
	}
}

// component checks one component with its merged settings.
func (k *checker) component(part pair, m parts) {
	run := m.run
	if part.val.broken && part.val.get("run") == nil {
		return
	}
	name := short(part.key)
	if run.get("command") == nil && !run.broken && !run.holes && !m.image {
		at := part.at
		for _, p := range part.val.pairs {
			if p.key == "run" {
				at = p.at
			}
		}
		k.add(at, []string{"want:  a list of texts – the program and its arguments"}, "add  command: [/usr/bin/"+name+"]  under  run:", "component "+name+" has no command")
	}
	k.kind(part, m)
	k.port(name, run, m.route)
	k.health(run.get("health"))
	k.places(run)
	k.volumesOf(part.key, run)
	k.secrets(run)
	k.hooks(m.hooks, run)
	if m.route != nil && !m.route.broken {
		k.route(part.key, m.route)
	}
}

// port checks that what needs a port has one.
func (k *checker) port(name string, run, route *node) {
	if run.broken || run.holes || run.get("port") != nil {
		return
	}
	want, fix := []string{"want:  the TCP port that the program listens on"}, "add  port: 8080  under  run:"
	if route != nil {
		k.add(route.at, want, fix, "component "+name+" has a route but no port")
	}
	if health := run.get("health"); health != nil && health.kind == kindMap && health.get("exec") == nil {
		k.add(health.at, want, fix, "component "+name+" has a health check but no port")
	}
}

func (k *checker) health(n *node) {
	if n == nil || n.kind != kindMap || n.broken || n.holes {
		return
	}
	var has []string
	for _, p := range n.pairs {
		if p.key == "http" || p.key == "tcp" || p.key == "exec" {
			has = append(has, p.key)
		}
	}
	switch {
	case len(has) == 0:
		k.add(n.at, []string{"want:  exactly one of http, tcp and exec"}, "add  http: /  or  tcp: true  or  exec: and a command", "health does not say what to probe")
	case len(has) > 1:
		k.add(n.at, nil, "keep one of them", "health has both "+strings.Join(has, " and "))
	}
}

// route checks that a route says one thing, and that no other component of the
// environment has the same one.
func (k *checker) route(component string, n *node) {
	tcp, listen := n.get("tcp"), n.get("listen")
	k.drains(n.get("drains"), tcp != nil)
	if tcp == nil {
		if listen != nil {
			k.add(listen.at, []string{"want:  listen with tcp; an http route is at the environment's own listen"}, "remove it, or add  tcp: and a port", "an http route has no address of its own")
		}
		k.httpRoute(component, n)
		return
	}
	for _, key := range []string{"host", "path"} {
		if v := n.get(key); v != nil && !v.made {
			k.add(v.at, nil, "keep one of them", "route has both tcp and "+key)
		}
	}
	if !usable(listen) {
		return
	}
	if other, taken := k.claim("listen "+listen.raw, component, listen.at); taken {
		whose := "the environment itself listens"
		if other.component != "" {
			whose = "component " + short(other.component) + " listens"
		}
		k.add(listen.at, []string{"other: " + k.c.f.src.where(other.at)}, "give one of them another port", whose+" on "+short(listen.raw)+" already")
	}
}

func (k *checker) httpRoute(component string, n *node) {
	host, path := k.c.text(n.get("host")), k.c.text(n.get("path"))
	other, taken := k.claim("http "+host+"\x00"+strings.TrimSuffix(path, "/"), component, n.at)
	if !taken {
		return
	}
	if host == "" {
		host = "any host, "
	}
	k.add(n.at, []string{"other: " + k.c.f.src.where(other.at)}, "give one of them another host or path",
		"components "+short(other.component)+" and "+short(component)+" have the same route: "+host+path)
}

// drains checks that times are given for what the route carries.
func (k *checker) drains(n *node, tcp bool) {
	if n == nil {
		return
	}
	for _, p := range n.pairs {
		if (p.key == "tcp") != tcp {
			k.add(p.at, nil, "remove it", "there is no "+p.key+" to drain on "+map[bool]string{true: "a tcp", false: "an http"}[tcp]+" route")
		}
	}
}
