package release

import (
	"fmt"
	"strings"
)

// rollout adds every difference of how releases are laid.
func (rs *reasons) rollout(a, b Rollout) {
	rs.add("strategy", a.Strategy, b.Strategy)
	rs.add("preview host", a.Preview, b.Preview)
	rs.add("approval of the switch", yes(a.Approve), yes(b.Approve))
	rs.duration("warm time", a.WarmMS, b.WarmMS)
	rs.number("surge", int64(a.Surge), int64(b.Surge))
	rs.number("unavailable", int64(a.Unavailable), int64(b.Unavailable))
	rs.number("batch", int64(a.Batch), int64(b.Batch))
	rs.add("canary steps", a.steps(), b.steps())
	rs.add("canary match", document(a.Match), document(b.Match))
	rs.add("canary cookie", a.Sticky, b.Sticky)
	rs.add("analysis", document(a.Analysis), document(b.Analysis))
	rs.duration("bake time", a.BakeMS, b.BakeMS)
	rs.duration("deadline", a.DeadlineMS, b.DeadlineMS)
	rs.add("queue", a.Queue, b.Queue)
	rs.add("freeze windows", document(a.Freeze), document(b.Freeze))
}

// steps renders the steps of a canary: "5 % for 1m0s, 50 % until approved, 100 %".
func (r Rollout) steps() string {
	out := make([]string, len(r.Steps))
	for i, s := range r.Steps {
		out[i] = fmt.Sprintf("%d %%", s.Weight)
		if s.PauseMS > 0 {
			out[i] += " for " + milliseconds(s.PauseMS)
		}
		if s.Approve {
			out[i] += " until approved"
		}
	}
	return strings.Join(out, ", ")
}

// state adds the differences of volumes and secrets. A secret's value is nowhere here,
// so a version and where it goes are all there is to tell.
func (rs *reasons) state(a, b Spec) {
	before, after := map[string]string{}, map[string]string{}
	for _, m := range a.Volumes {
		before[m.Path] = m.String()
	}
	for _, m := range b.Volumes {
		after[m.Path] = m.String()
	}
	for _, path := range eitherKey(before, after) {
		rs.add("volume at "+path, before[path], after[path])
	}
	had, has := map[string]Secret{}, map[string]Secret{}
	for _, s := range a.Secrets {
		had[s.Name] = s
	}
	for _, s := range b.Secrets {
		has[s.Name] = s
	}
	for _, name := range eitherKey(had, has) {
		x, y := had[name], has[name]
		rs.add("secret "+name, x.String(), y.String())
		if x.Version == y.Version {
			rs.digest("secret "+name+" encrypted anew", x.Sealed, y.Sealed)
		}
	}
}

// String renders a mount: "data, exclusive, with snapshots".
func (m Mount) String() string {
	out := m.Volume + ", " + m.Mode
	if m.ReadOnly {
		out += ", read-only"
	}
	if m.Snapshot {
		out += ", with snapshots"
	}
	return out
}

// String renders a secret: "version 3 in /run/secrets/key and KEY".
func (s Secret) String() string {
	if s.Name == "" {
		return ""
	}
	out := fmt.Sprintf("version %d in %s", s.Version, s.Path)
	if s.Version == 0 {
		out = "never set, in " + s.Path
	}
	if s.Env != "" {
		out += " and " + s.Env
	}
	return out
}

// beside adds what changes around instances that stay: order, hooks, times, contracts.
func (rs *reasons) beside(a, b Component) {
	rs.add("needs", strings.Join(a.Needs, ", "), strings.Join(b.Needs, ", "))
	rs.add("schedule", a.Schedule, b.Schedule)
	rs.hooks(a.Hooks, b.Hooks)
	rs.schemas(a.Schemas, b.Schemas)
}

func (p Component) kind() string {
	if p.Kind == "" {
		return KindService
	}
	return p.Kind
}

func (rs *reasons) hooks(a, b []Hook) {
	text := func(hooks []Hook, when string) string {
		var out []string
		for _, h := range hooks {
			if h.When == when {
				out = append(out, words(h.Command)+" within "+milliseconds(h.TimeoutMS))
			}
		}
		return strings.Join(out, "; ")
	}
	for _, when := range hookTimes {
		rs.add("hook "+when, text(a, when), text(b, when))
	}
}

func (rs *reasons) schemas(a, b []DataSchema) {
	before, after := map[string]string{}, map[string]string{}
	for _, s := range a {
		before[s.Name] = s.String()
	}
	for _, s := range b {
		after[s.Name] = s.String()
	}
	for _, name := range eitherKey(before, after) {
		rs.add("data schema "+name, before[name], after[name])
	}
}

// String renders a data schema: "reads 1-2, writes 2, leaves 2".
func (s DataSchema) String() string {
	out := fmt.Sprintf("reads %d-%d, writes %d", s.Reads.Min, s.Reads.Max, s.Writes)
	if s.Leaves != 0 {
		out += fmt.Sprintf(", leaves %d", s.Leaves)
	}
	return out
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// document renders a value that has no short words as its JSON; nothing for none.
func document(v any) string {
	doc, err := canonicalJSON(v)
	if text := string(doc); err == nil && text != "null" {
		return text
	}
	return ""
}
