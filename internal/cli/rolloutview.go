package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// rolloutLines tells of the rollout in flight in full, or of the last.
func (p *program) rolloutLines(s api.Status) []string {
	r := s.State.Rollout
	if r == nil {
		lines := []string{"no rollout is in flight in " + s.State.Env}
		if l := s.State.LastResult; l != nil {
			lines = append(lines, lastWords(s, l))
		}
		return append(lines, queueLines(s)...)
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	over := ""
	if r.From != nil {
		over = " over release " + number(r.From.Number)
	}
	add("rollout %d in %s: %s of release %d%s, by %s %s ago", r.Number, s.State.Env, r.Kind, r.To.Number, over, r.Actor, age(s.Now.Sub(r.StartedAt)))
	if r.Reason != "" {
		add("  why:    %s", r.Reason)
	}
	step := p.out.paint(yellow, string(r.Step)) + " for " + age(s.Now.Sub(r.StepAt))
	if r.Share > 0 {
		step += fmt.Sprintf(", the new release has %d %% of the traffic", r.Share)
	}
	add("  step:   %s", step)
	if st := r.Course().Stages; len(st) > 0 {
		add("  stages: %s", stageWords(r, st))
	} else if len(r.To.Strategy.Stages) > 0 && r.Kind == rollout.KindDeploy && r.From != nil {
		add("  stages: none, %s", noShare)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Rolls)) {
		roll := r.Rolls[name]
		add("  rolls:  %s, %d new and %d old instances wanted", name, roll.New, roll.Old)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Hooks)) {
		add("  hook:   %s  %s", strings.ReplaceAll(key, "/", " "), hookWords(r.Hooks[key], s.Now))
	}
	if !r.BakeTill.IsZero() && r.Step == rollout.Baking {
		add("  bakes:  until %s%s", r.BakeTill.Local().Format(time.TimeOnly), left(r.BakeTill.Sub(s.Now)))
	}
	if r.Failure != nil {
		add("  failed: %s", strings.TrimSpace(r.Failure.Instance+" "+r.Failure.What))
	}
	for _, c := range s.Why {
		add("  waits for %s", causeWords(c, s.Now))
	}
	for _, w := range s.Problems {
		add("%s", p.out.paint(red, "problem: "+w))
	}
	return append(lines, queueLines(s)...)
}

// stageWords tells the stages of a rollout, with the one at hand in brackets.
func stageWords(r *rollout.Rollout, stages []rollout.Stage) string {
	var out []string
	for i, st := range stages {
		words := stepWords(st)
		if r.Step == rollout.Shifting && i == r.Stage {
			words = "[" + words + "]"
		}
		out = append(out, words)
	}
	return allAtLast(out)
}

// noShare is why a canary has no stages.
const noShare = "as nothing that changes serves beside the old"

func stepWords(st rollout.Stage) string {
	words := share(st.Weight)
	if st.Pause > 0 {
		words += " for " + st.Pause.String()
	}
	if st.Approve {
		words += " and an approval"
	}
	return words
}

func share(weight int) string {
	switch weight {
	case 0:
		return "the preview"
	case 100:
		return "all"
	}
	return number(weight) + " %"
}

// allAtLast joins the words of stages, the last of which is all of the traffic.
func allAtLast(stages []string) string {
	if n := len(stages); n == 0 || stages[n-1] != "all" && stages[n-1] != "[all]" {
		stages = append(stages, "all")
	}
	return strings.Join(stages, ", ")
}

func hookWords(run rollout.HookRun, now time.Time) string {
	switch {
	case run.EndedAt.IsZero():
		return "runs for " + age(now.Sub(run.StartedAt)) + " (" + run.Instance + ")"
	case run.Failure != nil:
		return "failed after " + seconds(run.EndedAt.Sub(run.StartedAt)) + ": " + run.Failure.What
	}
	return "ended well after " + seconds(run.EndedAt.Sub(run.StartedAt))
}

func queueLines(s api.Status) []string {
	var lines []string
	for i, q := range s.State.Queue {
		words := fmt.Sprintf("queued %d: %s of release %d, by %s %s ago", i+1, q.Kind, q.To.Number, q.Actor, age(s.Now.Sub(q.At)))
		if q.Reason != "" {
			words += ": " + q.Reason
		}
		lines = append(lines, words, fmt.Sprintf("  take it back with  ashlar rollout withdraw %s --release %d", s.State.Env, q.To.Number))
	}
	return lines
}

// lastWords tells how the last rollout ended.
func lastWords(s api.Status, l *rollout.Result) string {
	words := fmt.Sprintf("last rollout: %d (%s), %s %s ago", l.Number, l.Kind, l.Outcome, age(s.Now.Sub(l.EndedAt)))
	switch {
	case l.Failure != nil:
		return words + ": " + strings.TrimSpace(l.Failure.Instance+" "+l.Failure.What)
	case !l.SwitchAt.IsZero():
		words += ", " + seconds(l.SwitchAt.Sub(l.StartedAt)) + " to switch"
	}
	if l.Outcome == rollout.Live && l.Kind == rollout.KindDeploy && !l.Proven {
		words += ", not proven: its bake was cut short"
	}
	return words
}

// strategyWords tells how a release would take the place of the one before: what its
// strategy comes to for the components that change.
func strategyWords(r release.Rollout, course rollout.Course) string {
	words := []string{r.Strategy}
	ways := map[rollout.Way][]string{}
	for _, name := range slices.Sorted(maps.Keys(course.Ways)) {
		ways[course.Ways[name]] = append(ways[course.Ways[name]], name)
	}
	switch {
	case len(course.Ways) == 0: // addresses and settings only
	case r.Strategy == rollout.Canary && len(course.Stages) == 0:
		words = append(words, "all at once, "+noShare)
	case r.Strategy == rollout.Canary:
		var stages []string
		for _, st := range course.Stages {
			stages = append(stages, stepWords(st))
		}
		words = append(words, allAtLast(stages))
	case r.Strategy == rollout.Rolling && len(ways[rollout.Rolled]) > 0:
		words = append(words, fmt.Sprintf("%d more and %d fewer instances at most", r.Surge, r.Unavailable))
	}
	if alone := ways[rollout.Replaced]; len(alone) > 0 && r.Strategy != rollout.Recreate {
		words = append(words, strings.Join(alone, ", ")+": the old end before the new start")
	}
	if r.Preview != "" {
		words = append(words, "preview at "+r.Preview)
	}
	if r.Approve {
		words = append(words, "a person approves the switch")
	}
	if r.Analysis != nil {
		words = append(words, "analysed")
	}
	for _, t := range []struct {
		ms   int64
		what string
	}{{r.BakeMS, "bakes for "}, {r.WarmMS, "the old stays warm for "}} {
		if t.ms > 0 {
			words = append(words, t.what+milliseconds(t.ms).String())
		}
	}
	return strings.Join(words, "; ")
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
