package definition

import (
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
)

// rollout converts how an environment, with defaults, takes a release in.
func (c *converter) rollout(env *node) release.Rollout {
	out := c.strategy(env.get("strategy"))
	out.Analysis = c.analysis(env.get("analysis"))
	out.BakeMS = c.duration(env.get("bake"), 0).Milliseconds()
	out.DeadlineMS = c.duration(env.get("deadline"), time.Second).Milliseconds()
	out.Queue = c.text(env.get("queue"))
	out.Freeze = c.freeze(env.get("freeze"))
	return out
}

// strategy converts a word, or a map of one word to settings.
func (c *converter) strategy(n *node) release.Rollout {
	out := release.Rollout{}
	if n == nil || n.broken {
		return out
	}
	own := &node{kind: kindMap, at: n.at}
	switch {
	case n.kind == kindMap && len(n.pairs) == 1:
		out.Strategy, own = n.pairs[0].key, n.pairs[0].val
	case n.kind == kindText:
		out.Strategy = n.raw
	default:
		return out
	}
	own.label = nodeLabel{key: out.Strategy}
	own = c.s.fill(own, c.s.root.Defs.get("strategy").Properties.get(out.Strategy))
	out.Preview = c.text(own.get("preview"))
	out.Approve = c.flag(own.get("approve"))
	out.WarmMS = c.duration(own.get("warm"), 0).Milliseconds()
	out.Surge = c.number(own.get("surge"))
	out.Unavailable = c.number(own.get("unavailable"))
	out.Batch = c.number(own.get("batch"))
	out.Steps = c.steps(own.get("steps"))
	out.Match = c.match(own.get("match"))
	out.Sticky = c.text(own.get("sticky"))
	if out.Strategy == "rolling" && out.Surge == 0 && out.Unavailable == 0 && !own.broken {
		c.f.add(n.at, []string{"want:  one of surge and unavailable above 0"}, "write  rolling: {surge: 1}",
			"rolling with surge 0 and unavailable 0 could not replace anything")
	}
	return out
}

// steps converts the steps of a canary, whose weights grow up to 100.
func (c *converter) steps(n *node) []release.Step {
	if n == nil || n.kind != kindList {
		return nil
	}
	var out []release.Step
	last := 0
	for i, item := range n.items {
		at := item
		step := release.Step{}
		if item.kind == kindMap {
			item = c.s.fill(item, c.s.root.Defs.get("step"))
			if at = item.get("weight"); at == nil {
				at = item
			}
			step.PauseMS = c.duration(item.get("pause"), time.Millisecond).Milliseconds()
			step.Approve = c.flag(item.get("approve"))
			step.Weight = c.number(item.get("weight"))
		} else {
			step.Weight = c.number(item)
		}
		out = append(out, step)
		switch {
		case item.broken || at.broken || step.Weight == 0:
			return out // what follows cannot be judged
		case step.Weight <= last:
			c.f.add(at.at, []string{"want:  weights that grow from step to step"}, "remove the step, or give it a weight above "+number(last),
				"weight %d of step %d is not above %d, the weight of the step before it", step.Weight, i+1, last)
		case i == len(n.items)-1 && step.Weight != 100:
			c.f.add(at.at, []string{"want:  a last step of 100, with which the new set has all traffic"}, "add a step  100",
				"the steps end at %d %%: the release would never have all traffic", step.Weight)
		}
		last = step.Weight
	}
	if len(out) == 0 {
		return nil
	}
	if end := out[len(out)-1]; end.PauseMS > 0 || end.Approve {
		c.f.add(n.items[len(n.items)-1].at, []string{"want:  a last step without pause and approve"}, "write  bake:  of the environment for a time in which a failure still puts it back",
			"nothing comes after the last step that could wait")
	}
	return out
}

func (c *converter) match(n *node) *release.Match {
	if n == nil || n.kind != kindMap {
		return nil
	}
	out := &release.Match{Header: c.text(n.get("header")), Cookie: c.text(n.get("cookie")), Value: c.text(n.get("value"))}
	if out.Header == "" && out.Cookie == "" && !n.broken && !n.holes {
		c.f.add(n.at, []string{"want:  exactly one of header and cookie"}, "add  header: X-Canary  or  cookie: canary", "match does not say where the value is looked for")
	}
	return out
}

func (c *converter) analysis(n *node) *release.Analysis {
	if n == nil || n.kind != kindMap {
		return nil
	}
	out := &release.Analysis{
		Requests:   c.number(n.get("requests")),
		Errors:     shortest(strings.TrimSuffix(c.text(n.get("errors")), "%")),
		Slower:     c.decimal(n.get("slower")),
		WindowMS:   c.duration(n.get("window"), time.Second).Milliseconds(),
		Prometheus: c.text(n.get("prometheus")),
		Secret:     c.text(n.get("secret")),
	}
	if out.Slower != "" {
		out.Quantile = permille(c.text(n.get("quantile")))
	} else if q := n.get("quantile"); q != nil && !q.made {
		c.f.add(q.at, nil, "add  slower: 1.5  or remove it", "quantile says of which latency slower is the bound, but there is no slower")
	}
	queries := n.get("queries")
	for _, p := range queries.pairs {
		q := release.Query{Name: p.key, Expr: c.text(p.val.get("query")), Min: c.decimal(p.val.get("min")), Max: c.decimal(p.val.get("max"))}
		if q.Min == "" && q.Max == "" && !p.val.broken && !p.val.holes {
			c.f.add(p.at, []string{"want:  one of min and max, or both"}, "add  max: 100", "query %s has no bound", short(p.key))
		}
		out.Queries = append(out.Queries, q)
	}
	switch at := n.get("prometheus"); {
	case len(out.Queries) > 0 && at == nil && !n.broken && !n.holes:
		c.f.add(queries.at, []string{"want:  the base URL of a Prometheus"}, "add  prometheus: http://127.0.0.1:9090  beside it", "analysis has queries, but no prometheus that would answer them")
	case len(out.Queries) == 0 && at != nil && !n.broken && !n.holes:
		c.f.add(at.at, nil, "add  queries:  beside it, or remove it", "prometheus is never asked anything")
	case out.Secret != "" && usable(at) && inTheClear(out.Prometheus):
		c.f.add(at.at, []string{"want:  https://, or http:// to this machine itself"}, "write  https://", "prometheus would be told its secret in the clear")
	}
	if at := n.get("secret"); at != nil && n.get("prometheus") == nil && !n.broken && !n.holes {
		c.f.add(at.at, nil, "add  prometheus:  beside it, or remove it", "secret is of prometheus, and there is none")
	}
	return out
}

// decimal gives a number as text; one that is not in plain decimal is refused.
func (c *converter) decimal(n *node) string {
	if !usable(n) {
		return ""
	}
	if n.odd || !matches(plainNumber, n.raw) {
		c.f.add(n.at, []string{"want:  digits, with a point if need be"}, example(n, c.s.root.Defs.get("decimal")), "%s %s is not a plain decimal number", n.label, short(n.raw))
		return ""
	}
	return shortest(n.raw)
}

const plainNumber = `^-?[0-9]{1,15}(\.[0-9]{1,9})?$`

// shortest writes a decimal number in one way only, so that 1.50 and 1.5 are the same
// release.
func shortest(text string) string {
	if text == "" {
		return ""
	}
	digits, minus := strings.CutPrefix(text, "-")
	if strings.Contains(digits, ".") {
		digits = strings.TrimRight(strings.TrimRight(digits, "0"), ".")
	}
	if digits = strings.TrimLeft(digits, "0"); digits == "" || digits[0] == '.' {
		digits = "0" + digits
	}
	if minus && digits != "0" {
		return "-" + digits
	}
	return digits
}

// permille gives p99.9 as 999.
func permille(text string) int {
	whole, tenth, _ := strings.Cut(strings.TrimPrefix(text, "p"), ".")
	n := 0
	for _, d := range whole + tenth {
		n = n*10 + int(d-'0')
	}
	if tenth == "" {
		n *= 10
	}
	return n
}
