package rollout

import (
	"fmt"
	"time"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

// A canary lays all new instances beside the old and moves the traffic in stages.
// Each stage's share is acknowledged by the router before its time begins; then what
// the stage asks for has to come true: a pause, a person, an analysis.

func checkCanary(s Strategy) string {
	last := 0
	for i, st := range s.Stages {
		switch {
		case st.Weight < 1 || st.Weight > 100:
			return fmt.Sprintf("step %d has the weight %d; it is 1 to 100 percent", i+1, st.Weight)
		case st.Weight <= last:
			return fmt.Sprintf("step %d has the weight %d, after one of %d; weights grow", i+1, st.Weight, last)
		}
		last = st.Weight
	}
	if s.Match != nil && (s.Match.Header == "") == (s.Match.Cookie == "") {
		return "match: names either a header or a cookie"
	}
	return ""
}

// weigh gives the backends of the old and the new group such that the new one gets
// percent of the requests, whatever the numbers of backends: 0 is none and 100 is
// all. In between, a group without backends leaves everything to the other.
func weigh(older, newer []Backend, percent int) []Backend {
	switch {
	case percent <= 0:
		return older
	case percent >= 100 || len(older) == 0:
		return newer
	case len(newer) == 0:
		return older
	}
	ofNew, ofOld := percent*len(older), (100-percent)*len(newer)
	common := gcd(ofNew, ofOld)
	out := make([]Backend, 0, len(older)+len(newer))
	for _, b := range older {
		b.Weight = ofOld / common
		out = append(out, b)
	}
	for _, b := range newer {
		b.Weight = ofNew / common
		out = append(out, b)
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// advanceShifting goes on to the next stage, or to the whole, when the stage at hand
// has what it asks for.
func (d *decider) advanceShifting(r *Rollout) {
	st := r.stage()
	switch {
	case d.refused():
		d.revert(Failure{What: "the router refused the routes: " + d.o.Refused.What, Blameless: true})
		return
	case st == nil: // written by another version
		d.enter(r, Laying, "its stages are not known")
		return
	case r.StageAt.IsZero() && !d.acknowledged():
		if !d.now.Before(r.StepAt.Add(switchPatience)) {
			d.revert(Failure{What: "the router did not acknowledge the new routes within " + switchPatience.String(), Blameless: true})
			return
		}
		d.wakeAt(r.StepAt.Add(switchPatience))
		d.wait(Cause{What: "the router to acknowledge the new routes", Since: r.StepAt, Till: r.StepAt.Add(switchPatience)})
		return
	case r.StageAt.IsZero():
		d.stageServed(r)
	}
	finding, timeOver := d.analysed(r, r.StageAt, r.StageAt.Add(st.Pause))
	if r.Step != Shifting || !d.stageDone(r, st) {
		return
	}
	if finding.Verdict != gate.Pass {
		if timeOver {
			d.revert(Failure{What: "not enough evidence: " + finding.What, Blameless: true})
		}
		return
	}
	if !d.allReady(r) {
		d.late(r, later(r.ProgressAt, r.StageAt.Add(st.Pause)))
		return
	}
	why := "the stage has what it asked for"
	if finding.What != "" {
		why = finding.What
	}
	d.nextStage(r, why)
}

// stageServed notes that the router serves the share of the stage at hand: its time
// begins.
func (d *decider) stageServed(r *Rollout) {
	r.StageAt, r.ProgressAt = d.now, d.now
	d.baseline(r)
	d.event(Event{Kind: "rollout.stage", Release: r.To.Release, Reason: "the router acknowledged " + stageWords(r)})
}

// stageDone says whether a stage has what it asks for, and what it waits for.
func (d *decider) stageDone(r *Rollout, st *Stage) bool {
	done := true
	if till := r.StageAt.Add(st.Pause); d.now.Before(till) {
		done = false
		d.wakeAt(till)
		d.wait(Cause{What: fmt.Sprintf("the pause at %s, until %s", stageWords(r), till.UTC().Format(time.TimeOnly)), Since: r.StageAt, Till: till})
	}
	if r.wantsApproval() {
		done = false
		d.wait(Cause{
			What: "a person to approve " + stageWords(r), Since: r.StageAt,
			Unblock: "an approval", Command: "ashlar rollout approve " + d.s.Env,
		})
	}
	return done
}

// nextStage asks for the next stage's share, or for the whole.
func (d *decider) nextStage(r *Rollout, why string) {
	next := r.Stage + 1
	if r.Step != Shifting {
		next = 0
	}
	if next >= len(r.stages()) {
		r.Share = 100
		d.enter(r, Switching, why)
		return
	}
	r.Stage, r.StageAt, r.Approved, r.Share = next, time.Time{}, nil, r.stages()[next].Weight
	d.enter(r, Shifting, fmt.Sprintf("%s: %s", why, stageWords(r)))
}

func stageWords(r *Rollout) string {
	st := r.stages()[r.Stage]
	if st.Weight == 0 {
		return "the preview"
	}
	return fmt.Sprintf("%d %% of the traffic", st.Weight)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
