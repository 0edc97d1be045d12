package release

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Reason is one difference of two releases, in words.
type Reason struct {
	What string `json:"what"`           // e.g. "env LOG_LEVEL", "config file /etc/nginx/nginx.conf"
	From string `json:"from,omitempty"` // rendered; empty: was not there
	To   string `json:"to,omitempty"`   // rendered; empty: is no longer there
}

// String renders the reason as `plan` shows it:
//
//	env LOG_LEVEL: "info" -> "debug"
//	config file /etc/site.conf: added sha256:44136fa355b3
func (r Reason) String() string {
	switch {
	case r.From == "":
		return r.What + ": added " + r.To
	case r.To == "":
		return r.What + ": removed, was " + r.From
	default:
		return r.What + ": " + r.From + " -> " + r.To
	}
}

// reasons collects differences; each method adds one if its two values differ.
type reasons []Reason

func (rs *reasons) add(what, from, to string) {
	if from != to {
		*rs = append(*rs, Reason{What: what, From: from, To: to})
	}
}

func (rs *reasons) number(what string, from, to int64) {
	rs.add(what, strconv.FormatInt(from, 10), strconv.FormatInt(to, 10))
}

// limit is a number of which 0 means none.
func (rs *reasons) limit(what string, from, to int64, render func(int64) string) {
	text := func(n int64) string {
		if n == 0 {
			return "none"
		}
		return render(n)
	}
	rs.add(what, text(from), text(to))
}

func (rs *reasons) duration(what string, from, to int64) {
	rs.add(what, milliseconds(from), milliseconds(to))
}

// digest shows a digest in short, or in full where the short forms are equal.
func (rs *reasons) digest(what string, from, to digest.Digest) {
	a, b := short(from), short(to)
	if from != to && a == b {
		a, b = string(from), string(to)
	}
	rs.add(what, a, b)
}

// spec adds everything that makes two specs differ. It knows every field, and
// says so in general words if it finds nothing: a replacement always has a reason.
func (rs *reasons) spec(a, b Spec) {
	had := len(*rs)
	rs.digest("artifact", a.Artifact, b.Artifact)
	if a.Artifact == b.Artifact {
		rs.digest("sealed tree", a.Tree, b.Tree)
	}
	rs.files(a.Files, b.Files)
	rs.add("command", words(a.Command), words(b.Command))
	rs.add("work directory", a.WorkDir, b.WorkDir)
	rs.add("user", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	rs.limit("port", int64(a.Port), int64(b.Port), decimal)
	for _, name := range eitherKey(a.Env, b.Env) {
		rs.add("env "+name, present(a.Env, name), present(b.Env, name))
	}
	rs.health(a.Health, b.Health)
	rs.limit("cpu", a.MilliCPU, b.MilliCPU, func(n int64) string { return decimal(n) + "m" })
	rs.limit("memory", a.Memory, b.Memory, bytesText)
	rs.limit("pids", a.PIDs, b.PIDs, decimal)
	rs.add("stop signal", a.StopSignal, b.StopSignal)
	rs.duration("stop grace", a.StopGraceMS, b.StopGraceMS)
	rs.tmpfs(a.Tmpfs, b.Tmpfs)
	rs.state(a, b)
	rs.add("capabilities", words(a.Capabilities), words(b.Capabilities))
	if len(*rs) == had {
		rs.digest("settings layer", a.Settings, b.Settings) // mount points, or another format of the layer
	}
	if len(*rs) == had {
		rs.digest("spec", a.Digest(), b.Digest())
	}
}

func (rs *reasons) files(a, b []ConfigFile) {
	before, after := map[string]ConfigFile{}, map[string]ConfigFile{}
	for _, f := range a {
		before[f.Path] = f
	}
	for _, f := range b {
		after[f.Path] = f
	}
	for _, path := range eitherKey(before, after) {
		what := "config file " + path
		x, had := before[path]
		y, has := after[path]
		if !had || !has {
			rs.digest(what, x.Digest, y.Digest)
			continue
		}
		rs.digest(what, x.Digest, y.Digest)
		rs.add(what+" mode", fmt.Sprintf("%04o", x.Mode), fmt.Sprintf("%04o", y.Mode))
		rs.add(what+" owner", fmt.Sprintf("%d:%d", x.UID, x.GID), fmt.Sprintf("%d:%d", y.UID, y.GID))
	}
}

func (rs *reasons) tmpfs(a, b []Tmpfs) {
	before, after := map[string]string{}, map[string]string{}
	for _, t := range a {
		before[t.Path] = fmt.Sprintf("%s, mode %04o", bytesText(t.Size), t.Mode)
	}
	for _, t := range b {
		after[t.Path] = fmt.Sprintf("%s, mode %04o", bytesText(t.Size), t.Mode)
	}
	for _, path := range eitherKey(before, after) {
		rs.add("tmpfs "+path, before[path], after[path])
	}
}

func (rs *reasons) health(a, b *Health) {
	if a == nil || b == nil {
		rs.add("health check", probe(a), probe(b))
		return
	}
	rs.add("health check", probe(a), probe(b))
	rs.duration("health check interval", a.IntervalMS, b.IntervalMS)
	rs.duration("health check timeout", a.TimeoutMS, b.TimeoutMS)
	rs.number("health check successes", int64(a.Successes), int64(b.Successes))
	rs.number("health check failures", int64(a.Failures), int64(b.Failures))
	rs.duration("health check start", a.StartMS, b.StartMS)
	rs.duration("health check settle", a.SettleMS, b.SettleMS)
}

func (rs *reasons) route(a, b *Route) {
	text := func(r *Route) string {
		if r == nil {
			return ""
		}
		if r.TCP != 0 {
			return "tcp " + decimal(int64(r.TCP))
		}
		return r.Host + r.Path
	}
	rs.add("route", text(a), text(b))
	if a != nil && b != nil {
		rs.add("route address", a.Listen, b.Listen)
		rs.duration("route hold time", a.HoldMS, b.HoldMS)
		rs.add("route drain times", document(a.Drains), document(b.Drains))
	}
}

func probe(h *Health) string {
	switch {
	case h == nil:
		return ""
	case len(h.Exec) > 0:
		return "exec " + words(h.Exec)
	case h.HTTP == "":
		return "tcp"
	default:
		return "http " + h.HTTP
	}
}

// present quotes a value of a map, an empty one too, and gives "" for none.
func present(m map[string]string, key string) string {
	v, ok := m[key]
	if !ok {
		return ""
	}
	return strconv.Quote(v)
}

func words(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'\\") || strconv.Quote(arg) != `"`+arg+`"` {
			out[i] = strconv.Quote(arg)
		}
	}
	return strings.Join(out, " ")
}

func short(d digest.Digest) string {
	const n = len("sha256:") + 12
	if len(d) <= n {
		return string(d)
	}
	return string(d[:n])
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func milliseconds(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// bytesText renders a size in the largest binary unit that divides it.
func bytesText(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size && n%unit.size == 0 {
			return decimal(n/unit.size) + " " + unit.name
		}
	}
	return decimal(n) + " B"
}

func eitherKey[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}
