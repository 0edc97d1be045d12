package definition

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"time"
)

// settings converts the settings of a component, merged and with defaults.
func (c *converter) settings(m parts) Settings {
	run := m.run
	out := Settings{
		Command:      c.texts(run.get("command")),
		WorkDir:      c.absolute(run.get("workdir")),
		User:         c.text(run.get("user")),
		Port:         c.number(run.get("port")),
		Env:          c.textMap(run.get("env")),
		Files:        c.configFiles(run.get("files")),
		Health:       c.health(run.get("health")),
		Resources:    c.resources(run.get("resources")),
		Stop:         c.stop(run.get("stop")),
		Drain:        c.duration(run.get("drain"), 0),
		Tmpfs:        c.tmpfs(run.get("tmpfs")),
		Volumes:      c.mounts(run.get("volumes")),
		Secrets:      c.secrets(run.get("secrets")),
		Capabilities: sorted(c.texts(run.get("capabilities"))),
		Route:        c.route(m.route),
		Replicas:     c.number(run.get("replicas")),
		Hooks:        c.hooks(m.hooks),
		Schedule:     c.schedule(m.schedule),
	}
	if user := run.get("user"); usable(user) && user.odd {
		c.number(user)
	}
	if m.image {
		out.silent(run)
	}
	return out
}

// silent takes away the defaults that an image may have something to say about.
func (s *Settings) silent(run *node) {
	made := func(n *node) bool { return n != nil && n.made }
	if made(run.get("workdir")) {
		s.WorkDir = ""
	}
	if made(run.get("user")) {
		s.User = ""
	}
	if made(run.get("stop").get("signal")) {
		s.Stop.Signal = ""
	}
}

func (c *converter) health(n *node) *Health {
	if n == nil || n.kind != kindMap {
		return nil
	}
	const least = time.Millisecond
	return &Health{
		HTTP:      c.text(n.get("http")),
		Exec:      c.texts(n.get("exec")),
		Interval:  c.duration(n.get("interval"), least),
		Timeout:   c.duration(n.get("timeout"), least),
		Successes: c.number(n.get("successes")),
		Failures:  c.number(n.get("failures")),
		Start:     c.duration(n.get("start"), least),
		Settle:    c.duration(n.get("settle"), 0),
	}
}

func (c *converter) resources(n *node) Resources {
	out := Resources{
		Memory: c.size(n.get("memory")),
		PIDs:   int64(c.number(n.get("pids"))),
	}
	if cpu := n.get("cpu"); usable(cpu) {
		milli, ok := parseCPU(cpu.raw)
		if !ok || cpu.odd {
			c.f.add(cpu.at, []string{"want:  an amount of CPU from 1m to 1000"}, "write it like  cpu: 500m", "cpu %s is out of range", short(cpu.raw))
		}
		out.MilliCPU = milli
	}
	return out
}

func (c *converter) stop(n *node) Stop {
	return Stop{Signal: c.text(n.get("signal")), Grace: c.duration(n.get("grace"), 0)}
}

// sorted gives a list in order, nil when it is empty.
func sorted(list []string) []string {
	slices.Sort(list)
	if len(list) == 0 {
		return nil
	}
	return list
}

func (c *converter) tmpfs(n *node) []Tmpfs {
	if n == nil {
		return nil
	}
	var out []Tmpfs
	for _, p := range n.pairs {
		size, mode := p.val, (*node)(nil)
		if p.val.kind == kindMap {
			size, mode = p.val.get("size"), p.val.get("mode")
		} else {
			filled := c.s.fill(&node{kind: kindMap, at: p.val.at}, c.s.root.Defs.get("tmpfs"))
			mode = filled.get("mode")
		}
		c.checkPath(p.key, p.at)
		out = append(out, Tmpfs{Path: p.key, Size: c.size(size), Mode: c.mode(mode)})
	}
	slices.SortFunc(out, func(a, b Tmpfs) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

func (c *converter) configFiles(n *node) []ConfigFile {
	if n == nil {
		return nil
	}
	var out []ConfigFile
	for _, p := range n.pairs {
		if p.val.kind != kindMap {
			continue
		}
		c.checkPath(p.key, p.at)
		file := ConfigFile{Path: p.key, Content: []byte(c.text(p.val.get("content"))), Mode: c.mode(p.val.get("mode"))}
		file.UID, file.GID = c.owner(p.val.get("owner"))
		if from := p.val.get("from"); from != nil {
			file.Content = c.load(from)
		}
		out = append(out, file)
	}
	slices.SortFunc(out, func(a, b ConfigFile) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// maxConfig is how long a config file may be.
const maxConfig = 1 << 20

// loaded is a config file that was read.
type loaded struct {
	content []byte
	err     error
}

// load reads the file that `from:` names.
func (c *converter) load(from *node) []byte {
	name := c.relative(from)
	if name == "" {
		return nil
	}
	file, done := c.loaded[name]
	if !done {
		file.content, file.err = c.files.ReadFile(name)
		c.loaded[name] = file
	}
	switch {
	case errors.Is(file.err, fs.ErrNotExist):
		c.f.add(from.at, []string{"want:  a file, relative to the directory of the definition"}, "create the file, or mend its name", "config file %q does not exist", short(name))
	case file.err != nil:
		c.f.add(from.at, nil, "make it a file that can be read", "config file %q cannot be read: %s", short(name), file.err)
	case len(file.content) > maxConfig:
		c.f.add(from.at, []string{"want:  at most 1 MiB"}, "put it into the artifact with a files: source", "config file %q is %d bytes long", short(name), len(file.content))
	}
	return file.content
}
