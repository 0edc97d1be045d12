package rollout

import (
	"fmt"
	"strconv"
)

// Rolling replaces the instances of a component a few at a time: never more than
// the declared number and Surge of them, never fewer that serve than the declared
// number without Unavailable. Both releases serve meanwhile, each instance alike.

func checkRolling(s Strategy) string {
	switch {
	case s.Surge < 0 || s.Unavailable < 0 || s.Batch < 0:
		return "surge, unavailable and batch are not negative"
	case s.Surge+s.Unavailable == 0:
		return "with neither surge nor unavailable no instance can be replaced"
	}
	return ""
}

// roll takes the next step of one component's rolling replacement, in whichever
// direction the rollout goes, and says whether it is complete.
func (d *decider) roll(r *Rollout, name string) bool {
	at, began := r.Rolls[name]
	if !began {
		to := r.To.named(name) // of which some may be there: a set that was kept warm
		at = Roll{New: min(to.Replicas, len(d.of(name, to.Spec))), Old: r.From.named(name).Replicas}
	}
	up, down := r.To.named(name), r.From.named(name)
	if r.Step == Reverting {
		up, down, at.New, at.Old = down, up, at.Old, at.New
	}
	next := d.rollOn(r.To.Strategy, *up, *down, at)
	done := next.New == up.Replicas && next.Old == 0 && d.ready(*up) >= up.Replicas
	if r.Step == Reverting {
		next.New, next.Old = next.Old, next.New
	}
	if !began || next != r.Rolls[name] {
		r.Rolls = with(r.Rolls, name, next)
		r.ProgressAt = d.now
		d.event(Event{Kind: "rollout.rolled", Release: r.To.Release, Data: map[string]string{
			"component": name, "new": strconv.Itoa(next.New), "old": strconv.Itoa(next.Old),
		}})
	}
	return done
}

// rollOn gives how many instances there should be on either side next: New of up,
// Old of down.
func (d *decider) rollOn(s Strategy, up, down Component, at Roll) Roll {
	surge, missing := s.Surge, s.Unavailable
	if s.Batch > 0 {
		surge, missing = min(surge, s.Batch), min(missing, s.Batch)
	}
	most := max(up.Replicas, down.Replicas) + surge
	least := max(min(up.Replicas, down.Replicas)-missing, 0)
	ready := min(d.ready(up), at.New) // more there may be, but they are not wanted yet
	if ready >= at.New {
		room := most - at.New - d.present(down)
		grow := min(up.Replicas-at.New, room)
		if s.Batch > 0 {
			grow = min(grow, s.Batch)
		}
		at.New += max(grow, 0)
	}
	at.Old = min(at.Old, max(least-ready, 0))
	return at
}

// present counts the instances of a component that are there, those on their way
// out included.
func (d *decider) present(c Component) int { return len(d.groups[group{c.Name, c.Spec}]) }

func rollWords(name string, at Roll) string {
	return fmt.Sprintf("%s: %d new instances and %d old ones", name, at.New, at.Old)
}
