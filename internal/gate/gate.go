// Package gate judges: is the new release as good as the old one by its traffic, is
// a metric within its bounds, is this a time in which nothing is deployed, and
// when is a job due. All of it is a function of its arguments.
//
// It is not what waits, asks or decides what follows: that is package rollout, and
// the values of Prometheus come from package prometheus.
//
// Start at [Analyse]. What its statistics promise is played through in
// TestFalseAlarms and TestBadReleasesAreFound.
package gate

import "strings"

// Verdict is the answer of a gate.
type Verdict string

// The verdicts. NotEnough is neither good nor bad: there is nothing to judge by, or
// too little to tell a bad release from bad luck.
const (
	Pass      Verdict = "pass"
	Fail      Verdict = "fail"
	NotEnough Verdict = "not-enough"
)

// Finding is a verdict with the figures that it rests on.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	What    string  `json:"what"` // in words, one sentence without a final dot
}

// Of returns f as a finding about a named thing, such as a component.
func (f Finding) Of(name string) Finding {
	f.What = name + ": " + f.What
	return f
}

// Combine is the verdict of several findings together: one that fails decides, then
// one that has not enough. It tells the findings of the verdict that it gives, of
// several the first first. No finding at all is Pass with nothing to tell.
func Combine(findings ...Finding) Finding {
	for _, verdict := range []Verdict{Fail, NotEnough} {
		if what := tell(findings, verdict); len(what) > 0 {
			return Finding{verdict, strings.Join(what, "; ")}
		}
	}
	return Finding{Pass, strings.Join(tell(findings, Pass), "; ")}
}

func tell(findings []Finding, verdict Verdict) []string {
	var what []string
	for _, f := range findings {
		if f.Verdict == verdict {
			what = append(what, f.What)
		}
	}
	return what
}
