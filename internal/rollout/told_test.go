package rollout_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What a transcript tells.

// tell puts a decision into words.
func (st *stage) tell(d rollout.Decision) []string {
	var out []string
	say := func(what, format string, args ...any) {
		out = append(out, strings.ReplaceAll(fmt.Sprintf("%-7s ", what)+fmt.Sprintf(format, args...), "shop-prod-", ""))
	}
	for _, e := range d.Events {
		say("record", "%s", st.eventWords(e))
	}
	for _, a := range d.Do {
		say("do", "%s", a)
	}
	for _, w := range d.Waiting {
		say("wait", "for %s", w)
	}
	if !d.Wake.IsZero() {
		say("wake", "in %s", d.Wake.Sub(st.now))
	}
	if len(out) == 0 {
		return []string{"nothing to do"}
	}
	return out
}

func (st *stage) eventWords(e rollout.Event) string {
	words := e.Kind
	if e.Instance != "" {
		words += " " + e.Instance
	} else if e.Release != "" {
		words += " " + st.names[e.Release]
	}
	if e.Reason != "" {
		words += ": " + e.Reason
	}
	if len(e.Data) > 0 {
		var data []string
		for _, k := range slices.Sorted(maps.Keys(e.Data)) {
			data = append(data, k+"="+e.Data[k])
		}
		words += "  (" + strings.Join(data, ", ") + ")"
	}
	return words
}

// remembered puts the state into words.
func (st *stage) remembered() []string {
	s, name := st.state, func(d digest.Digest) string { return st.names[d] }
	out := []string{"current: nothing"}
	if s.Current != nil {
		out[0] = "current: " + name(s.Current.Release)
		if len(s.Current.Components) == 0 {
			out[0] += ", down"
		}
	}
	switch r := s.Rollout; {
	case r != nil:
		out = append(out, fmt.Sprintf("rollout: %d, %s of %s, %s", r.Number, r.Kind, name(r.To.Release), r.Step))
	case s.LastResult != nil:
		out = append(out, fmt.Sprintf("rollout: none; %d, %s of %s, ended %s", s.LastResult.Number, s.LastResult.Kind, name(s.LastResult.Release), s.LastResult.Outcome))
	}
	out = append(out, "routes: "+s.Table.String())
	for _, o := range s.Instances {
		words := "instance: " + o.ID + " of " + name(o.Release)
		if o.Served {
			words += ", was ready"
		}
		if o.Leaving {
			words += ", leaving"
		}
		out = append(out, words)
	}
	if s.Warm != nil {
		out = append(out, fmt.Sprintf("warm: release %d until %s", s.Warm.Target.Number, s.Warm.Till.Format(time.TimeOnly)))
	}
	for _, q := range s.Queue {
		out = append(out, fmt.Sprintf("waits: %s of release %d", q.Kind, q.To.Number))
	}
	for _, d := range slices.Sorted(maps.Keys(s.Quarantine)) {
		out = append(out, "quarantine: "+name(d))
	}
	for _, n := range slices.Sorted(maps.Keys(s.Data)) {
		out = append(out, fmt.Sprintf("data: %s may have version %d", n, s.Data[n]))
	}
	if len(s.KnownGood) > 0 {
		var good []string
		for _, d := range s.KnownGood {
			good = append(good, name(d))
		}
		out = append(out, "known good: "+strings.Join(good, ", "))
	}
	if s.LastResult != nil && s.LastResult.Failure != nil && s.Rollout == nil {
		f := s.LastResult.Failure
		words := "failure: " + strings.TrimSpace(f.Instance+" "+f.What)
		if f.Probe != "" {
			words += "; probe: " + f.Probe
		}
		if len(f.Tail) > 0 {
			words += "; output: " + strings.Join(f.Tail, " / ")
		}
		out = append(out, words)
	}
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "shop-prod-", "")
	}
	return out
}
