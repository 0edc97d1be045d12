package release

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// maxInteger is the largest integer that RFC 8785 can write exactly: 2^53 - 1.
const maxInteger = 1<<53 - 1

// Limits that no real release comes near; they bound what a hostile document costs.
const (
	maxEnvironments = 64
	maxComponents   = 256
	maxList         = 4096 // members of any list or map of a Spec
	maxReplicas     = 10000
	maxMilliseconds = 366 * 24 * 3600 * 1000 // a year: no duration of a release overflows a time.Duration
)

// Validate says everything that is wrong with the release, as a fault.List, or nil.
// It checks what the document must be in itself; whether its objects exist is
// another question.
func (r Release) Validate() error {
	c := &checker{}
	if r.Schema != Schema {
		c.fail("schema", "is %q; this program knows %q", r.Schema, Schema)
	}
	c.name("app", r.App)
	c.count("environments", len(r.Environments), 1, maxEnvironments)
	for _, name := range slices.Sorted(maps.Keys(r.Environments)) {
		where := "environments." + name
		c.name(where, name)
		r.Environments[name].check(c, where)
	}
	if len(c.faults) == 0 {
		return nil
	}
	return c.faults
}

func (e Environment) check(c *checker, where string) {
	c.required(where+".platform", e.Platform)
	e.Rollout.check(c, where+".rollout")
	c.text(where+".listen", e.Listen)
	if e.TLS != nil {
		e.TLS.check(c, where+".tls")
	}
	c.count(where+".volumes", len(e.Volumes), 0, maxList)
	c.count(where+".events", len(e.Events), 0, maxList)
	for i, w := range e.Events {
		w.check(c, fmt.Sprintf("%s.events[%d]", where, i))
	}
	c.between(where+".keep", int64(e.Keep), 0, maxInteger)
	c.count(where+".components", len(e.Components), 1, maxComponents)
	for _, name := range slices.Sorted(maps.Keys(e.Components)) {
		at := where + ".components." + name
		c.name(at, name)
		e.Components[name].check(c, at)
	}
	e.checkWhole(c, where)
}

func (p Component) check(c *checker, where string) {
	p.Spec.check(c, where+".spec")
	if p.Ledger != "" {
		c.digest(where+".ledger", p.Ledger)
	}
	c.between(where+".replicas", int64(p.Replicas), 0, maxReplicas)
	c.between(where+".drainMs", p.DrainMS, 0, maxMilliseconds)
	p.checkKind(c, where)
	if p.Route != nil {
		p.Route.check(c, where+".route", p.Spec.Port)
	}
}

func (s Spec) check(c *checker, where string) {
	c.digest(where+".artifact", s.Artifact)
	c.digest(where+".tree", s.Tree)
	c.digest(where+".settings", s.Settings)
	c.count(where+".command", len(s.Command), 1, maxList)
	for i, arg := range s.Command {
		c.text(fmt.Sprintf("%s.command[%d]", where, i), arg)
	}
	c.path(where+".workDir", s.WorkDir)
	c.between(where+".uid", int64(s.UID), 0, 1<<32-2)
	c.between(where+".gid", int64(s.GID), 0, 1<<32-2)
	c.between(where+".port", int64(s.Port), 0, 65535)
	c.between(where+".milliCpu", s.MilliCPU, 0, maxInteger)
	c.between(where+".memory", s.Memory, 0, maxInteger)
	c.between(where+".pids", s.PIDs, 0, maxInteger)
	c.required(where+".stopSignal", s.StopSignal)
	c.between(where+".stopGraceMs", s.StopGraceMS, 0, maxMilliseconds)
	s.checkEnv(c, where+".env")
	s.checkPlaces(c, where)
	s.checkState(c, where)
	c.count(where+".capabilities", len(s.Capabilities), 0, maxList)
	for i, name := range s.Capabilities {
		c.required(fmt.Sprintf("%s.capabilities[%d]", where, i), name)
	}
	if s.Health != nil {
		s.Health.check(c, where+".health")
	}
}

func (s Spec) checkEnv(c *checker, where string) {
	c.count(where, len(s.Env), 0, maxList)
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		at := where + "." + name
		if name == "" || strings.Contains(name, "=") {
			c.fail(where, "has the name %q; a name is not empty and has no =", name)
		}
		c.text(at, name)
		c.text(at, s.Env[name])
	}
}

// checkPlaces checks the config files and the writable places: sorted, each once.
func (s Spec) checkPlaces(c *checker, where string) {
	c.count(where+".files", len(s.Files), 0, maxList)
	for i, f := range s.Files {
		at := fmt.Sprintf("%s.files[%d]", where, i)
		c.path(at, f.Path)
		c.digest(at, f.Digest)
		c.between(at+".size", f.Size, 0, maxInteger)
		c.between(at+".mode", int64(f.Mode), 0, 0o7777)
		c.between(at+".uid", int64(f.UID), 0, 1<<32-2)
		c.between(at+".gid", int64(f.GID), 0, 1<<32-2)
		if i > 0 && s.Files[i-1].Path >= f.Path {
			c.fail(at, "%s is not after %s; files are sorted by path, each once", f.Path, s.Files[i-1].Path)
		}
	}
	c.count(where+".tmpfs", len(s.Tmpfs), 0, maxList)
	for i, t := range s.Tmpfs {
		at := fmt.Sprintf("%s.tmpfs[%d]", where, i)
		c.path(at, t.Path)
		c.between(at+".size", t.Size, 1, maxInteger)
		c.between(at+".mode", int64(t.Mode), 0, 0o7777)
		if i > 0 && s.Tmpfs[i-1].Path >= t.Path {
			c.fail(at, "%s is not after %s; places are sorted by path, each once", t.Path, s.Tmpfs[i-1].Path)
		}
	}
}

func (h Health) check(c *checker, where string) {
	c.text(where+".http", h.HTTP)
	if h.HTTP != "" && !strings.HasPrefix(h.HTTP, "/") {
		c.fail(where+".http", "is %q; it must begin with /", h.HTTP)
	}
	c.between(where+".intervalMs", h.IntervalMS, 1, maxMilliseconds)
	c.between(where+".timeoutMs", h.TimeoutMS, 1, maxMilliseconds)
	c.between(where+".successes", int64(h.Successes), 1, maxInteger)
	c.between(where+".failures", int64(h.Failures), 1, maxInteger)
	c.between(where+".startMs", h.StartMS, 1, maxMilliseconds)
	c.between(where+".settleMs", h.SettleMS, 0, maxMilliseconds)
	c.count(where+".exec", len(h.Exec), 0, maxList)
	for _, arg := range h.Exec {
		c.text(where+".exec", arg)
	}
	if h.HTTP != "" && len(h.Exec) > 0 {
		c.fail(where, "has both http and exec")
	}
}

// checker collects what is wrong.
type checker struct{ faults fault.List }

func (c *checker) fail(where, format string, args ...any) {
	c.faults = append(c.faults, fault.New(fault.Invalid, "release document: %s "+format, append([]any{where}, args...)...))
}

// text refuses what canonical JSON or an argument of execve cannot carry.
func (c *checker) text(where, s string) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		c.fail(where, "is %q; it must be UTF-8 without NUL", s)
	}
}

func (c *checker) required(where, s string) {
	c.text(where, s)
	if s == "" {
		c.fail(where, "is missing")
	}
}

// name checks a DNS label (RFC 1123, section 2.1).
func (c *checker) name(where, s string) {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, b := range []byte(s) {
		ok = ok && (b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '-')
	}
	if !ok {
		c.fail(where, "has the name %q; a name is 1 to 63 of a-z, 0-9 and - inside", s)
	}
}

func (c *checker) digest(where string, d digest.Digest) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		c.fail(where, "has the digest %q; it must be sha256: and 64 hexadecimal digits", d)
	}
}

func (c *checker) path(where, p string) {
	c.text(where, p)
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		c.fail(where, "is %q; it must be an absolute path without . or .. or a slash at the end", p)
	}
}

func (c *checker) between(where string, n, low, high int64) {
	if n < low || n > high {
		c.fail(where, "is %d; it must be %d to %d", n, low, high)
	}
}

func (c *checker) count(where string, n, low, high int) {
	if n < low || n > high {
		c.fail(where, "has %d members; it must have %d to %d", n, low, high)
	}
}
