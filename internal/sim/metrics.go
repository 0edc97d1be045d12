package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// query is what an analysis asks the made-up Prometheus: 1 if the release errs.
var query = release.Query{Name: "errors", Expr: `errs{release="$new"}`, Max: "0.5"}

// metrics is the made-up Prometheus. It answers, has no value yet, or is away.
type metrics struct{ w *world }

var _ engine.Metrics = metrics{}

// answer is what was last said to one expression.
type answer struct {
	value float64
	found bool
	err   error
}

func (m metrics) Query(_ context.Context, _ rollout.Key, q rollout.Question) (float64, bool, error) {
	w, expr := m.w, q.Expr
	if w.chance(0.02) {
		w.metricsOut = w.now.Add(w.between(0, 10*time.Second))
		w.tell("fault: Prometheus is gone until %s", w.metricsOut.Sub(epoch))
	}
	var a answer
	switch {
	case w.now.Before(w.metricsOut):
		a.err = errors.New("no answer")
	case w.chance(0.1):
	default:
		a = answer{found: true}
		for d, rel := range w.releases {
			if strings.Contains(expr, rollout.Short(d)) && errs(rel) {
				a.value = 1
			}
		}
	}
	w.answers[expr] = a
	return a.value, a.found, a.err
}

func errs(rel release.Release) bool {
	for _, env := range rel.Environments {
		for _, c := range env.Components {
			if c.Spec.Env["behaviour"] == "errs" {
				return true
			}
		}
	}
	return false
}

// checkEvidence is that a stage is passed, and a release counts as proven, only on a good
// answer to every query: none and an error are not good ones.
func (w *world) checkEvidence(was, next rollout.State) {
	r := was.Rollout
	if r == nil || next.Rollout == nil || next.Rollout.Number != r.Number {
		return
	}
	to := next.Rollout
	passed := r.Step == rollout.Shifting && (to.Step == rollout.Switching || to.Step == rollout.Shifting && to.Stage > r.Stage)
	proven := r.Step == rollout.Baking && to.Step == rollout.Retiring &&
		slices.Contains(next.KnownGood, r.To.Release) && !slices.Contains(was.KnownGood, r.To.Release)
	if !passed && !proven {
		return
	}
	for _, q := range was.Questions() {
		w.counts.Asked++
		if a := w.answers[q.Expr]; !a.found || a.err != nil || a.value > 0.5 {
			w.violate("evidence", "release %d goes on from %s although Prometheus answers %v, %v, %v", r.To.Number, r.Step, a.value, a.found, a.err)
		}
	}
}
