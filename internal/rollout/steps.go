package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

// advance moves the rollout in flight on, as far as the observation allows: one
// step at most, so that each is recorded before the next is begun.
func (d *decider) advance() {
	r := d.s.Rollout
	if r == nil {
		d.coolDown()
		return
	}
	if !d.judge(r) {
		return
	}
	if r.Paused != nil && slices.Contains([]Step{Laying, Shifting, Draining, Baking}, r.Step) {
		d.wait(Cause{
			What: "a person to resume it; paused by " + r.Paused.By, Since: r.Paused.At,
			Unblock: "resuming it", Command: "ashlar rollout resume " + d.s.Env,
		})
		return
	}
	switch r.Step {
	case Laying:
		d.advanceLaying(r)
	case Shifting:
		d.advanceShifting(r)
	case Switching:
		d.advanceSwitching(r)
	case Draining:
		d.advanceDraining(r)
	case Baking:
		d.advanceBaking(r)
	case Retiring:
		d.advanceRetiring(r)
	case Reverting:
		d.advanceReverting(r)
	}
}

// advanceLaying gives each wave of components its turn, and goes on when every
// instance that the rollout brings is ready.
func (d *decider) advanceLaying(r *Rollout) {
	if r.From == nil && d.refused() {
		d.revert(Failure{What: "the router refused the routes: " + d.o.Refused.What, Blameless: true})
		return
	}
	turns := d.turns(r)
	switch {
	case !d.allReady(r):
		d.late(r, r.ProgressAt)
	case len(turns) < len(d.waves):
		r.Wave, r.ProgressAt = len(turns), d.now
		d.event(Event{Kind: "rollout.wave", Release: r.To.Release, Reason: "what they need is ready", Data: map[string]string{
			"components": strings.Join(d.waves[r.Wave], " "),
		}})
	default:
		d.nextStage(r, "every new instance is ready")
	}
}

// late ends a rollout that has stood still for too long. One that must not be put
// back says so again and again instead.
func (d *decider) late(r *Rollout, since time.Time) {
	limit := r.To.Strategy.deadline()
	if end := since.Add(limit); d.now.Before(end) {
		d.wakeAt(end)
		return
	}
	what := fmt.Sprintf("nothing went forward for %s", limit)
	if len(d.why) > 0 {
		what += "; it waited for " + d.why[0].What
	}
	if r.Proven && !d.untouched(r) {
		r.ProgressAt = d.now
		d.event(Event{Kind: "rollout.late", Release: r.To.Release, Reason: what + "; a rollback is not put back, it goes on"})
		return
	}
	d.revert(Failure{What: what})
}

// allReady says whether every instance is ready that the rollout has brought so far.
func (d *decider) allReady(r *Rollout) bool {
	all := true
	for _, c := range r.To.Components {
		from := r.From.find(c.Name, c.Spec)
		if c.Kind == KindJob || from != nil && c.Replicas <= from.Replicas || !d.reached(r, c.Name) {
			continue // carried over as it is, or not yet its turn
		}
		if how(r, c.Name) != carried && r.Step == Laying && !d.hooked(r, &r.To, want{Component: c, target: &r.To, alone: how(r, c.Name) == replaced || c.alone(r.To.Strategy)}, HookBefore) {
			all = false
			continue
		}
		if how(r, c.Name) == rolled && r.Step == Laying {
			if !d.roll(r, c.Name) {
				all = false
				d.wait(Cause{What: rollWords(c.Name, r.Rolls[c.Name]), Since: r.StepAt})
			}
			continue
		}
		if ready := d.ready(c); ready < c.Replicas {
			all = false
			d.wait(Cause{What: fmt.Sprintf("%s: %d of %d new instances ready", c.Name, ready, c.Replicas), Since: r.StepAt})
		}
	}
	return all
}

// advanceSwitching goes on when the router acknowledges the new table: whichever
// it was asked for in this step leads to the new instances. While it has not, a new
// instance that is no longer ready takes the rollout a step back.
func (d *decider) advanceSwitching(r *Rollout) {
	end := r.StepAt.Add(switchPatience)
	switch {
	case d.refused():
		d.revert(Failure{What: "the router refused the routes: " + d.o.Refused.What, Blameless: true})
	case d.acknowledged():
		d.live(r)
	case !d.now.Before(end):
		d.revert(Failure{What: "the router did not acknowledge the new routes within " + switchPatience.String(), Blameless: true})
	case !d.allReady(r):
		d.stepBack(r)
	default:
		d.wakeAt(end)
		d.wait(Cause{What: "the router to acknowledge the new routes", Since: r.StepAt, Till: end})
	}
}

// stepBack takes a rollout that asked for the whole back to where it waits for its
// instances.
func (d *decider) stepBack(r *Rollout) {
	why := "a new instance is no longer ready"
	if st := r.stages(); len(st) > 0 {
		r.Share = st[r.Stage].Weight
		d.enter(r, Shifting, why)
		return
	}
	r.Share = 0
	d.enter(r, Laying, why)
}

// live moves the pointer.
func (d *decider) live(r *Rollout) {
	r.SwitchAt = d.now
	r.DrainTill = d.now.Add(longestDrain(r.From))
	d.s.Current = &r.To
	d.written(&r.To)
	d.baseline(r)
	d.event(Event{Kind: "release.live", Release: r.To.Release, Reason: "the router serves the new instances"})
	d.enter(r, Draining, "the router acknowledged the new routes")
}

// advanceDraining goes on when the old instances have no request left, or their
// time is over. Until then the old can still take the traffic back.
func (d *decider) advanceDraining(r *Rollout) {
	left := 0
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; r.To.find(o.Component, o.Spec) == nil {
			left += d.o.Router.InFlight[o.ID]
		}
	}
	if left > 0 && d.now.Before(r.DrainTill) {
		d.wait(Cause{
			What:  fmt.Sprintf("%d requests of the old instances to end, until %s at the latest", left, r.DrainTill.UTC().Format(time.TimeOnly)),
			Since: r.StepAt, Till: r.DrainTill,
		})
		d.wakeAt(r.DrainTill)
		d.wakeAt(d.now.Add(drainPoll))
		return
	}
	why := "the old instances have no request left"
	if left > 0 {
		why = fmt.Sprintf("the drain time is over with %d requests left", left)
	}
	if d.bakes(r) {
		r.BakeTill = r.SwitchAt.Add(r.To.Strategy.Bake)
		d.enter(r, Baking, why)
		return
	}
	d.retire(r, why, true)
}

// bakes says whether anything has to be waited for between the switch and the end
// of the old.
func (d *decider) bakes(r *Rollout) bool {
	if r.Hurried != "" || r.Kind == KindDown {
		return false
	}
	return r.Kind == KindDeploy && r.To.Strategy.Bake > 0 || d.hasHooks(r)
}

// advanceBaking goes on when the hooks after the switch have ended and the new
// instances have served for as long as is declared. The old ones are kept until
// then, so that putting back is only a switch.
func (d *decider) advanceBaking(r *Rollout) {
	if r.Hurried == "" && len(d.s.Queue) > 0 && d.s.Queue[0].To.Strategy.Queue != QueueVerify {
		d.hurry(r, fmt.Sprintf("the %s of release %d waits", d.s.Queue[0].Kind, d.s.Queue[0].To.Number))
	}
	hooked := d.hooksAfter(r)
	if r.Hurried != "" {
		d.retire(r, r.Hurried, false)
		return
	}
	if !hooked {
		return
	}
	finding, timeOver := d.analysed(r, r.SwitchAt, r.BakeTill)
	if r.Step != Baking {
		return
	}
	if r.Kind == KindDeploy && d.now.Before(r.BakeTill) {
		d.wakeAt(r.BakeTill)
		d.wait(Cause{What: "the new release to prove itself until " + r.BakeTill.UTC().Format(time.TimeOnly), Since: r.SwitchAt, Till: r.BakeTill})
		return
	}
	switch {
	case finding.Verdict == gate.Pass:
		d.retire(r, "the new release has proven itself", true)
	case timeOver:
		d.retire(r, "it stays live and does not count as proven: not enough evidence: "+finding.What, false)
	}
}

// retire lets the old instances go. There is no way back any more.
func (d *decider) retire(r *Rollout, why string, proven bool) {
	if proven {
		d.s.KnownGood = appendOnce(d.s.KnownGood, r.To.Release)
	}
	if r.Kind == KindRollback && r.From != nil && r.From.Release != r.To.Release {
		// Somebody went back from it, so no rollback leads to it by itself.
		d.s.KnownGood = slices.DeleteFunc(d.s.KnownGood, func(g digest.Digest) bool { return g == r.From.Release })
	}
	d.keepWarm(r)
	d.endJobs(&r.To, fmt.Sprintf("release %d has no such job", r.To.Number))
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if o.Leaving || o.Hook != "" || r.To.find(o.Component, o.Spec) != nil || d.s.Warm != nil && d.s.Warm.Target.find(o.Component, o.Spec) != nil {
			continue
		}
		d.leave(o, fmt.Sprintf("replaced by release %d", r.To.Number))
		o.DrainTill = d.now // it has drained
	}
	d.enter(r, Retiring, why)
}

// advanceRetiring ends the rollout when nothing of the old is left but what is kept
// warm.
func (d *decider) advanceRetiring(r *Rollout) {
	if n := d.foreign(&r.To); n > 0 {
		d.wait(Cause{What: fmt.Sprintf("%d old instances to end", n), Since: r.StepAt})
		return
	}
	d.end(r, Live)
}

// advanceReverting ends the rollout when nothing of the new is left, the routes are
// back and what was replaced is there again.
func (d *decider) advanceReverting(r *Rollout) {
	back := true
	for _, c := range r.To.Components {
		if _, began := r.Rolls[c.Name]; began && how(r, c.Name) == rolled && !d.roll(r, c.Name) {
			back = false
			d.wait(Cause{What: rollWords(c.Name, r.Rolls[c.Name]), Since: r.StepAt})
		}
	}
	for _, c := range r.To.Components {
		if how(r, c.Name) == beside && r.From != nil && d.shareBack(r, c.Name) > 0 {
			d.wait(Cause{What: c.Name + ": the previous instances to be ready before the traffic goes back", Since: r.StepAt})
		}
	}
	switch n := d.foreign(r.From); {
	case n > 0:
		d.wait(Cause{What: fmt.Sprintf("%d new instances to end", n), Since: r.StepAt})
	case !d.acknowledged() || !sameRoutes(d.s.Table, d.table()):
		d.wait(Cause{What: "the router to acknowledge the previous routes", Since: r.StepAt})
	case back && d.restored(r) && d.hooksBack(r):
		d.end(r, PutBack)
	}
}

// restored says whether the old instances that the rollout had replaced are ready
// again. That is not waited for without end: the environment goes on trying.
func (d *decider) restored(r *Rollout) bool {
	if r.From == nil {
		return true
	}
	for _, c := range r.From.Components {
		if c.Kind == KindJob || how(r, c.Name) == carried || d.ready(c) >= c.Replicas {
			continue
		}
		end := r.StepAt.Add(2*max(revertPatience, c.Start) + c.Drain + c.Grace)
		if d.now.Before(end) {
			d.wakeAt(end)
			d.wait(Cause{What: c.Name + ": the previous instances to be ready", Since: r.StepAt, Till: end})
			return false
		}
	}
	return true
}

// revert turns the rollout round. The pointer goes back at once; the routes
// follow in the same decision, and the new instances leave once they are unrouted.
func (d *decider) revert(f Failure) {
	r := d.s.Rollout
	if r == nil || r.Step == Reverting || r.Step == Retiring {
		return
	}
	r.Failure, r.Paused = &f, nil
	d.s.Current = r.From
	d.endHooks(r)
	d.enter(r, Reverting, failureWords(f))
	if r.Kind == KindDeploy && !f.Blameless && (r.From == nil || r.From.Release != r.To.Release) {
		d.s.Quarantine = with(d.s.Quarantine, r.To.Release, Quarantined{At: d.now, Rollout: r.Number, Why: failureWords(f)})
		d.event(Event{Kind: "release.quarantined", Release: r.To.Release, Reason: failureWords(f)})
	}
}

func (d *decider) enter(r *Rollout, step Step, why string) {
	r.Step, r.StepAt, r.ProgressAt = step, d.now, d.now
	d.event(Event{Kind: "rollout." + string(step), Release: r.To.Release, Reason: why})
}

func (d *decider) end(r *Rollout, outcome Outcome) {
	d.s.LastResult = &Result{
		Number: r.Number, Kind: r.Kind, Outcome: outcome, Release: r.To.Release,
		StartedAt: r.StartedAt, SwitchAt: r.SwitchAt, EndedAt: d.now, Failure: r.Failure,
		Proven: outcome == Live && slices.Contains(d.s.KnownGood, r.To.Release),
	}
	why := "the new release serves and nothing of the old is left"
	if outcome == PutBack {
		why = "put back: " + failureWords(*r.Failure)
	}
	d.event(Event{Kind: "rollout." + string(outcome), Release: r.To.Release, Reason: why})
	d.s.Rollout, d.waves = nil, nil
}

// refused says that the router will never take the table last asked for.
func (d *decider) refused() bool {
	return d.o.Refused != nil && d.o.Refused.Generation == d.s.Table.Generation
}

// ready counts the instances of a component that are ready.
func (d *decider) ready(c Component) int {
	n := 0
	for _, o := range d.of(c.Name, c.Spec) {
		if d.phase(o.ID) == Ready {
			n++
		}
	}
	return n
}

// foreign counts the orders that belong neither to the target nor to what is kept
// warm. A job at its time may go on.
func (d *decider) foreign(t *Target) int {
	n := 0
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		switch {
		case o.Hook == HookSchedule && t.named(o.Component) != nil:
		case o.Hook == "" && t.find(o.Component, o.Spec) != nil:
		case o.Hook == "" && !o.Leaving && d.s.Warm != nil && d.s.Warm.Target.find(o.Component, o.Spec) != nil:
		default:
			n++
		}
	}
	return n
}

func longestDrain(t *Target) time.Duration {
	longest := time.Duration(0)
	if t != nil {
		for _, c := range t.Components {
			longest = max(longest, c.Drain)
			if c.Route != nil {
				longest = c.Route.Drains.longest(longest)
			}
		}
	}
	return longest
}

func failureWords(f Failure) string {
	if f.Instance == "" {
		return f.What
	}
	return f.Instance + " " + f.What
}

func appendOnce(list []digest.Digest, d digest.Digest) []digest.Digest {
	list = slices.DeleteFunc(list, func(have digest.Digest) bool { return have == d })
	return append(list, d)
}
