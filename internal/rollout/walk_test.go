package rollout_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestRolloutsEnd is liveness: on an outside that does what it is asked, however
// the programs behave, each rollout ends, and as it should: a release whose
// programs all work is live, and one that has a program that cannot work is put
// back. Everything that decideAndCheck knows holds after each step.
func TestRolloutsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk()
		for n := range rapid.IntRange(1, 4).Draw(t, "deploys") {
			to := anyTarget(t, fmt.Sprint("deploy ", n+1))
			to.Release, to.Number = digest.FromString(fmt.Sprint("release ", n+1)), n+1
			live := w.live()
			good := w.begin(t, rollout.KindDeploy, to)
			w.untilEnd(t)
			result := w.state.LastResult
			switch {
			case good && result.Outcome != rollout.Live:
				t.Fatalf("release %d works and ended %s: %s", to.Number, result.Outcome, result.Failure.What)
			case !good && result.Outcome != rollout.PutBack:
				t.Fatalf("release %d cannot work and ended %s", to.Number, result.Outcome)
			case !good && w.live() != live:
				t.Fatalf("release %d was put back and %q is live instead of %q", to.Number, w.live(), live)
			}
			w.untilRest(t)
		}
	})
}

// TestFaultyWalk is safety with faults: what Decide asks for may not be done, may
// be done and not be known, and the server may be killed; instances fail at any time.
func TestFaultyWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk()
		for n := range rapid.IntRange(5, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what happens") {
			case 0:
				to := anyTarget(t, fmt.Sprint("deploy ", n+1))
				to.Release, to.Number = digest.FromString(fmt.Sprint("release ", n+1)), n+1
				if w.state.Rollout == nil {
					w.begin(t, rollout.KindDeploy, to)
					break
				}
				w.draw(t, &to)
				q := rollout.Request{Kind: rollout.KindDeploy, To: to, Actor: "dana", Queue: rapid.Bool().Draw(t, "queue"), Supersede: rapid.Bool().Draw(t, "supersede")}
				if next, _, err := rollout.Begin(w.now, w.state, q); err == nil {
					w.state = clone(next)
				}
			case 1: // the server is killed before the commit
				decideAndCheck(t, w.now, w.state, w.seen())
			case 2: // the server is killed after the commit, or nothing that it asks for is heard
				w.state = clone(decideAndCheck(t, w.now, w.state, w.seen()).Next)
			case 3: // an instance fails
				if ids := w.ids(); len(ids) > 0 {
					w.units[rapid.SampledFrom(ids).Draw(t, "who")].phase = rapid.SampledFrom(somePhases).Draw(t, "phase")
				}
			case 5: // a person says something, which may not fit
				verb := rapid.SampledFrom([]string{rollout.VerbPause, rollout.VerbResume, rollout.VerbApprove, rollout.VerbAbort}).Draw(t, "verb")
				if next, _, err := rollout.Control(w.now, w.state, "dana", rollout.Command{Verb: verb}); err == nil {
					w.state = clone(next)
				}
			case 4: // the router is replaced by one without a table
				if rapid.Bool().Draw(t, "forgets") {
					w.table = rollout.Table{}
				}
			default:
				w.step(t)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "pause")) * 100 * time.Millisecond)
		}
	})
}

// walk is an outside that does what it is asked.
type walk struct {
	now    time.Time
	state  rollout.State
	units  map[string]*unit
	table  rollout.Table
	broken map[digest.Digest]bool // specs of programs that end or are never ready
	flight map[string]time.Time   // instance ID to when its last request ends
}

type unit struct {
	rollout.Instance
	phase   rollout.Phase
	started time.Time
}

func newWalk() *walk {
	return &walk{
		now: midnight, state: rollout.State{App: "shop", Env: "prod"},
		units: map[string]*unit{}, broken: map[digest.Digest]bool{}, flight: map[string]time.Time{},
	}
}

// begin begins a rollout and says whether its new programs work. Which do is drawn
// once for each spec.
func (w *walk) begin(t *rapid.T, kind string, to rollout.Target) bool {
	w.draw(t, &to)
	live := found{w.state.Current}
	next, events, err := rollout.Begin(w.now, w.state, rollout.Request{Kind: kind, To: to, Actor: "dana"})
	if err != nil || len(events) < 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	w.state = clone(next)
	return !slices.ContainsFunc(to.Components, func(c rollout.Component) bool {
		runs := live.find(c) // its hooks do not run again
		return c.Replicas > 0 && w.broken[c.Spec] || !runs && slices.ContainsFunc(c.Hooks, func(h rollout.Hook) bool { return h.When != rollout.HookRollback && w.broken[h.Spec] })
	})
}

// draw draws which programs of a target work.
func (w *walk) draw(t *rapid.T, to *rollout.Target) {
	for i := range to.Components {
		c := &to.Components[i]
		c.Start += 100 * time.Millisecond // a start time of nothing is nobody's
		// A spec is what a component is in one release or in several, never shared between components.
		c.Spec = digest.FromString(c.Name + c.Kind + string(c.Spec))
		if _, drawn := w.broken[c.Spec]; !drawn {
			w.broken[c.Spec] = rapid.IntRange(0, 3).Draw(t, "broken") == 0
		}
		for j := range c.Hooks {
			h := &c.Hooks[j]
			h.Spec = digest.FromString(c.Name + h.When + string(h.Spec))
			if _, drawn := w.broken[h.Spec]; !drawn {
				w.broken[h.Spec] = rapid.IntRange(0, 9).Draw(t, "hook broken") == 0
			}
		}
	}
}

// found finds components of a target.
type found struct{ *rollout.Target }

func (f found) find(c rollout.Component) bool {
	return f.Target != nil && slices.ContainsFunc(f.Components, func(o rollout.Component) bool { return o.Name == c.Name && o.Spec == c.Spec })
}

// approve is a person who approves whatever waits for it.
func (w *walk) approve(t *rapid.T, d rollout.Decision) {
	if !slices.ContainsFunc(d.Why, func(c rollout.Cause) bool { return c.Unblock == "an approval" }) {
		return
	}
	next, events, err := rollout.Control(w.now, w.state, "dana", rollout.Command{Verb: rollout.VerbApprove})
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	w.state = clone(next)
}

// step is one decision, and doing all of it.
func (w *walk) step(t *rapid.T) rollout.Decision {
	d := decideAndCheck(t, w.now, w.state, w.seen())
	w.state = clone(d.Next)
	for _, a := range d.Do {
		switch a := a.(type) {
		case rollout.ApplyTable:
			for _, s := range w.table.Services {
				for _, b := range s.Backends {
					w.flight[b.ID] = w.now.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "request")) * 700 * time.Millisecond)
				}
			}
			w.table = a.Table
		case rollout.StartInstance:
			if w.units[a.Instance.ID] == nil {
				w.units[a.Instance.ID] = &unit{Instance: a.Instance, phase: rollout.Starting, started: w.now}
			}
		case rollout.StopInstance:
			if u := w.units[a.ID]; u != nil && u.phase != rollout.Exited {
				u.phase = rapid.SampledFrom([]rollout.Phase{rollout.Stopping, rollout.Exited}).Draw(t, "it stops")
			}
		case rollout.RemoveInstance:
			delete(w.units, a.ID)
		}
	}
	for _, id := range w.ids() { // the programs go on
		u := w.units[id]
		switch {
		case u.phase != rollout.Starting:
		case u.Hook != "" && !w.broken[u.Spec]:
			u.phase = rollout.Exited
		case !w.broken[u.Spec]:
			u.phase = rollout.Ready
		case rapid.Bool().Draw(t, "it ends"):
			u.phase = rollout.Exited
		}
	}
	return d
}

// untilEnd goes on until no rollout is in flight, letting time pass as the
// decisions ask for.
func (w *walk) untilEnd(t *rapid.T) {
	end := w.now.Add(5 * time.Minute)
	for w.state.Rollout != nil {
		d := w.step(t)
		w.approve(t, d)
		if w.now.After(end) {
			t.Fatalf("%s\nrollout %d is still %s, waiting for %v", marshal(w.state), w.state.Rollout.Number, w.state.Rollout.Step, d.Waiting)
		}
		w.pass(d)
	}
}

// untilRest goes on until nothing is left to do: what runs is what is wanted.
func (w *walk) untilRest(t *rapid.T) {
	end := w.now.Add(5 * time.Minute)
	for {
		d := w.step(t)
		if len(d.Events) == 0 && len(d.Do) == 0 && d.Wake.IsZero() {
			break
		}
		if w.now.After(end) {
			t.Fatalf("not at rest: %d events, %v, waiting for %v", len(d.Events), d.Do, d.Waiting)
		}
		w.pass(d)
	}
	want := 0
	if w.state.Current != nil {
		for _, c := range w.state.Current.Components {
			want += c.Replicas
		}
	}
	if len(w.units) != want || len(w.state.Instances) != want {
		t.Fatalf("%d instances run and %d are remembered; %d are wanted", len(w.units), len(w.state.Instances), want)
	}
}

// pass lets the time pass that the engine would let pass.
func (w *walk) pass(d rollout.Decision) {
	switch {
	case len(d.Events) > 0 || len(d.Do) > 0:
		w.now = w.now.Add(time.Millisecond)
	case d.Wake.IsZero() || d.Wake.After(w.now.Add(5*time.Second)):
		w.now = w.now.Add(5 * time.Second)
	default:
		w.now = d.Wake
	}
}

// seen is what an observer would say.
func (w *walk) seen() rollout.Observation {
	o := rollout.Observation{Router: rollout.RouterStatus{Generation: w.table.Generation, InFlight: map[string]int{}}, Attempts: map[string]rollout.Attempt{}}
	for _, id := range w.ids() {
		u := w.units[id]
		o.Instances = append(o.Instances, rollout.Observed{
			ID: id, Component: u.Component, Release: u.Release, Spec: u.Spec, Phase: u.phase, Address: id + ":1", StartedAt: u.started,
		})
		if u.Hook != "" && u.phase == rollout.Exited && !w.broken[u.Spec] {
			o.Instances[len(o.Instances)-1].Exit = &rollout.Exit{}
		}
		if w.now.Before(w.flight[id]) {
			o.Router.InFlight[id] = 1
		}
	}
	return o
}

func (w *walk) live() digest.Digest {
	if w.state.Current == nil {
		return ""
	}
	return w.state.Current.Release
}

func (w *walk) ids() []string {
	ids := make([]string, 0, len(w.units))
	for id := range w.units {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
