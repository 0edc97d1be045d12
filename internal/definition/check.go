package definition

import (
	"slices"
	"strings"
)

// checker finds what does not fit together once an environment's overrides are
// merged in. What is wrong in every environment alike is said once.
type checker struct {
	c      *converter
	envs   []string
	routes map[string]claim // of the environment under way
	found  []complaint
}

// claim is a component that has a route.
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

func (k *checker) begin(env string) {
	k.envs = append(k.envs, env)
	k.routes = map[string]claim{}
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
func (k *checker) component(part pair, run, route *node) {
	if part.val.broken && part.val.get("run") == nil {
		return
	}
	name := short(part.key)
	if run.get("command") == nil && !run.broken && !run.holes {
		at := part.at
		for _, p := range part.val.pairs {
			if p.key == "run" {
				at = p.at
			}
		}
		k.add(at, []string{"want:  a list of texts – the program and its arguments"}, "add  command: [/usr/bin/"+name+"]  under  run:", "component "+name+" has no command")
	}
	k.port(name, run, route)
	k.health(run.get("health"))
	k.places(run)
	if route != nil && !route.broken {
		k.route(part.key, route)
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
	if health := run.get("health"); health != nil && health.kind == kindMap {
		k.add(health.at, want, fix, "component "+name+" has a health check but no port")
	}
}

func (k *checker) health(n *node) {
	if n == nil || n.kind != kindMap || n.broken || n.holes || n.get("http") != nil || n.get("tcp") != nil {
		return
	}
	k.add(n.at, []string{"want:  exactly one of http and tcp"}, "add  http: /  or  tcp: true", "health does not say what to probe")
}

// places checks the paths of config files and tmpfs against each other.
func (k *checker) places(run *node) {
	tmpfs, files := run.get("tmpfs"), run.get("files")
	if tmpfs == nil || files == nil {
		return
	}
	for _, p := range slices.Concat(tmpfs.pairs, files.pairs) {
		for _, own := range []string{"/proc", "/sys", "/dev"} {
			if below(p.key, own) {
				k.add(p.at, nil, "choose another path", "path "+p.key+" belongs to the system: "+own+" is made for each instance")
			}
		}
	}
	for _, p := range files.pairs {
		k.file(p, files, tmpfs)
	}
}

func (k *checker) file(p pair, files, tmpfs *node) {
	for _, t := range tmpfs.pairs {
		if below(p.key, t.key) {
			k.add(p.at, nil, "move the file, or take the tmpfs away", "config file "+p.key+" would be hidden by the tmpfs "+t.key)
		} else if below(t.key, p.key) {
			k.add(p.at, nil, "move one of them", "config file "+p.key+" is in the way of the tmpfs "+t.key)
		}
	}
	for _, other := range files.pairs {
		if other.key != p.key && below(other.key, p.key) {
			k.add(p.at, nil, "move one of them", "config file "+p.key+" would be the directory of "+other.key)
		}
	}
	if n := p.val; n.kind == kindMap && !n.broken && !n.holes && n.get("from") == nil && n.get("content") == nil {
		k.add(p.at, []string{"want:  exactly one of from and content"}, "add  from: and a file name, or  content: and the text", "config file "+p.key+" has no content")
	}
}

// below says that an absolute path is dir or beneath it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// route checks that no other component of the environment has the same one.
func (k *checker) route(component string, n *node) {
	host, path := k.c.text(n.get("host")), k.c.text(n.get("path"))
	key := host + "\x00" + strings.TrimSuffix(path, "/")
	other, taken := k.routes[key]
	if !taken {
		k.routes[key] = claim{component, n.at}
		return
	}
	if host == "" {
		host = "any host, "
	}
	k.add(n.at, []string{"other: " + k.c.f.src.where(other.at)}, "give one of them another host or path",
		"components "+short(other.component)+" and "+short(component)+" have the same route: "+host+path)
}
