package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

// An analysis compares the new release's traffic with the old one's, at each stage
// and while the new one bakes. The judging is package gate's; here is what is
// compared, since when, and what follows.

// analysisPoll is how often an analysis is looked at while it waits.
const analysisPoll = time.Second

// Question is an expression that Prometheus is asked.
type Question struct {
	Base   string // URL
	Secret string // name of the environment's secret that Prometheus asks for; empty: none
	Expr   string
}

// Metric is the answer.
type Metric struct {
	Value float64
	Found bool
	Error string // why there is no answer; empty: there is one
}

// Questions lists what a decision on this state needs to know of Prometheus.
func (s State) Questions() []Question {
	r := s.Rollout
	if r == nil || !r.analyses() {
		return nil
	}
	a := r.To.Strategy.Analysis
	var out []Question
	for _, q := range a.Queries {
		out = append(out, Question{a.Prometheus, a.Secret, r.expression(q)})
	}
	return out
}

// analyses says whether the step at hand has an analysis.
func (r *Rollout) analyses() bool {
	if r.To.Strategy.Analysis == nil || r.Kind != KindDeploy || r.From == nil {
		return false
	}
	st := r.stage()
	return st != nil && st.Weight > 0 && !r.StageAt.IsZero() || r.Step == Baking && r.To.Strategy.Bake > 0
}

func (r *Rollout) expression(q Query) string {
	return strings.NewReplacer("$new", Short(r.To.Release), "$old", Short(r.From.Release)).Replace(q.Expr)
}

// analyse judges the step at hand.
func (d *decider) analyse(r *Rollout) gate.Finding {
	a := r.To.Strategy.Analysis
	rule := gate.Rule{Requests: a.Requests, Errors: a.Errors, Slower: a.Slower, Quantile: a.Quantile, Bounds: LatencyBounds}
	var findings []gate.Finding
	for i := range r.To.Components {
		if c := &r.To.Components[i]; judged(r, c) {
			newer, older := d.evidence(r, c.Name, rule.Requests)
			findings = append(findings, gate.Analyse(rule, newer, older).Of(c.Name))
		}
	}
	for _, q := range a.Queries {
		m := d.o.Metrics[r.expression(q)]
		if m.Error != "" {
			findings = append(findings, gate.Finding{Verdict: gate.NotEnough, What: q.Name + ": Prometheus gives no answer: " + m.Error})
			continue
		}
		findings = append(findings, gate.AnalyseQuery(gate.Query{Name: q.Name, Min: q.Min, Max: q.Max}, m.Value, m.Found))
	}
	return gate.Combine(findings...)
}

// judged says whether a component has requests that tell the old from the new.
func judged(r *Rollout, c *Component) bool {
	m := how(r, c.Name)
	return c.Route != nil && c.Route.TCP == 0 && (m == beside || m == rolled || m == replaced) && r.From.named(c.Name) != nil
}

// evidence is the traffic of both sides of a service since the stage or the bake
// began. Where the old one got too little since then, it is all it ever got.
func (d *decider) evidence(r *Rollout, service string, enough int) (newer, older gate.Traffic) {
	var ever gate.Traffic
	group := TrafficKey(service, Short(r.To.Release))
	for key, t := range d.o.Router.Traffic {
		switch now := gate.Traffic(t); {
		case key == group:
			newer = now.Since(gate.Traffic(r.Baseline[key]))
		case strings.HasPrefix(key, TrafficKey(service, "")):
			older, ever = plus(older, now.Since(gate.Traffic(r.Baseline[key]))), plus(ever, now)
		}
	}
	if older.Requests < int64(enough) {
		older = ever
	}
	return newer, older
}

func plus(a, b gate.Traffic) gate.Traffic {
	sum := gate.Traffic{Requests: a.Requests + b.Requests, Errors: a.Errors + b.Errors, Latency: append([]int64(nil), a.Latency...)}
	for i, n := range b.Latency {
		if i < len(sum.Latency) {
			sum.Latency[i] += n
		} else {
			sum.Latency = append(sum.Latency, n)
		}
	}
	return sum
}

// baseline keeps the counters from which on is counted.
func (d *decider) baseline(r *Rollout) {
	if r.To.Strategy.Analysis == nil {
		return
	}
	r.Baseline = nil
	for key, t := range d.o.Router.Traffic {
		service, _, _ := strings.Cut(key, "@")
		if c := r.To.named(service); c != nil && judged(r, c) {
			r.Baseline = with(r.Baseline, key, t)
		}
	}
}

// analysed says whether the analysis of the step at hand, which began at since, lets
// it go on, and reverts the rollout if it fails. What there is too little evidence for is
// waited for until its time, which begins with early, is over.
func (d *decider) analysed(r *Rollout, since, early time.Time) (f gate.Finding, timeOver bool) {
	if !r.analyses() {
		return gate.Finding{Verdict: gate.Pass}, false
	}
	f = d.analyse(r)
	end := later(since, early).Add(r.To.Strategy.Analysis.Window)
	switch f.Verdict {
	case gate.Fail:
		d.revert(Failure{What: "the analysis failed: " + f.What})
	case gate.NotEnough:
		timeOver = !d.now.Before(end)
		d.wakeAt(d.now.Add(analysisPoll))
		if timeOver && !r.wantsApproval() {
			break
		}
		d.wait(Cause{
			What: "enough evidence: " + f.What, Since: since, Till: end,
			Unblock: fmt.Sprintf("more requests to release %d", r.To.Number), Command: "ashlar rollout abort " + d.s.Env,
		})
	default:
		d.wakeAt(d.now.Add(analysisPoll))
	}
	return f, timeOver
}
