package sim

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// crash is what a killed server panics with.
type crash struct{ where string }

var (
	errLost      = errors.New("the reply was lost")
	errPartition = errors.New("no answer")
)

// mayCrash kills the server here, now and then.
func (w *world) mayCrash(where string) {
	if w.chance(0.004) {
		w.counts.Crashes++
		panic(crash{where})
	}
}

// platform is the made-up engine.Platform. It belongs to one server; what it
// knows by probing goes with that.
type platform struct{ w *world }

var _ engine.Platform = platform{}

// Start makes a unit that behaves as its spec's environment says, see behaviours.
func (p platform) Start(_ context.Context, env rollout.Key, in rollout.Instance, spec release.Spec) error {
	w := p.w
	w.mayCrash("before start " + in.ID)
	if known, seen := w.specs[in.Spec]; !seen || !reflect.DeepEqual(known, spec) { // a digest takes longer than the rest of a start
		if got := spec.Digest(); got != in.Spec {
			w.violate("I1", "%s was started with spec %s instead of %s", in.ID, got, in.Spec)
		}
		w.specs[in.Spec] = spec
	}
	w.checkStart(w.remembered(env), env, in)
	if w.past[in.ID] {
		w.violate("I8", "%s was started again after it had ended", in.ID)
	}
	if w.now.Before(w.partition) {
		return errPartition
	}
	if there := w.units[in.ID]; there != nil {
		there.late = false
		return nil
	}
	u := w.behave(&unit{Instance: in, env: env, spec: spec, startedAt: w.now})
	if err := w.mayHold(u); err != nil {
		return err
	}
	switch {
	case spec.Env["behaviour"] == "refused":
		return fault.New(fault.Invalid, "no such command")
	case w.chance(0.03):
		return errors.New("the platform was busy")
	case w.chance(0.03):
		w.late = append(w.late, lateStart{w.now.Add(w.between(0, 2*time.Second)), u})
		return errLost
	}
	w.place(u)
	w.signal(env)
	w.mayCrash("after start " + in.ID)
	if w.chance(0.03) {
		return errLost
	}
	return nil
}

// behave draws how the unit will behave.
func (w *world) behave(u *unit) *unit {
	u.readyAt = w.now
	if u.spec.Health != nil {
		u.readyAt = w.now.Add(w.between(5*time.Millisecond, 500*time.Millisecond))
	}
	if u.Hook != "" {
		u.readyAt = w.now
		u.exitAt = w.now.Add(w.between(10*time.Millisecond, time.Second))
		switch u.spec.Command[1] {
		case "fails":
			u.exitCode = 1
		case "hangs":
			u.exitAt = time.Time{}
		}
		return u
	}
	u.exitCode = 3
	switch u.spec.Env["behaviour"] {
	case "exits":
		u.exitAt = w.now.Add(w.between(0, 100*time.Millisecond))
		u.readyAt = w.now.Add(never)
	case "never-ready":
		u.readyAt = w.now.Add(never)
	case "slow":
		u.readyAt = w.now.Add(w.between(time.Second, 9*time.Second))
	case "flaps":
		u.downFrom = u.readyAt.Add(w.between(0, 2*time.Second))
		u.downTill = u.downFrom.Add(w.between(0, 20*time.Second))
	}
	switch {
	case w.chance(0.05):
		u.exitAt = w.now.Add(w.between(0, 30*time.Second))
	case w.chance(0.05):
		u.downFrom = w.now.Add(w.between(0, 30*time.Second))
		u.downTill = u.downFrom.Add(w.between(0, 15*time.Second))
	}
	return u
}

// mayHold checks that nothing else holds what the unit needs alone: its volume, or its
// place as a singleton. A platform refuses what would be held twice; that the engine
// asked for it is a violation, unless a start that was given up came late.
func (w *world) mayHold(u *unit) error {
	if u.Fence != 0 && u.Fence <= w.fences[u.place()] {
		w.violate("fence", "%s comes with the token %d after one with %d", u.ID, u.Fence, w.fences[u.place()])
		return fault.New(fault.Conflict, "the token %d of %s is too old", u.Fence, u.ID)
	}
	for _, id := range w.ids() {
		other := w.units[id]
		if other.exited == nil && !other.late && w.meets(u, other) {
			w.violate("alone", "%s, a %s, is started while %s runs, a %s", u.ID, u.spec.Kind, id, other.spec.Kind)
		}
		if other.exited != nil || !w.excludes(u, other) {
			continue
		}
		if !other.late {
			w.violate("alone", "%s is started while %s holds what it needs", u.ID, id)
		}
		return fault.New(fault.Conflict, "%s holds what %s needs", id, u.ID)
	}
	return nil
}

// meets says whether two units of one component, one of which takes work by itself, are
// of different releases: no platform knows that, the engine has to.
func (w *world) meets(a, b *unit) bool {
	alone := func(u *unit) bool { return u.spec.Kind == release.KindWorker || u.spec.Kind == release.KindSingleton }
	hook := func(u *unit) bool { return u.Hook != "" && u.Hook != rollout.HookSchedule }
	return a.place() == b.place() && a.Spec != b.Spec && (alone(a) || alone(b)) && !hook(a) && !hook(b)
}

// excludes says whether two units may not run at the same time.
func (w *world) excludes(a, b *unit) bool {
	switch {
	case a.env != b.env:
		return false
	case a.Fence != 0 && b.Fence != 0 && a.Component == b.Component:
		return true
	}
	return slices.ContainsFunc(a.spec.Volumes, func(m release.Mount) bool {
		return m.Mode == release.VolumeExclusive && slices.ContainsFunc(b.spec.Volumes, func(o release.Mount) bool { return o.Volume == m.Volume })
	})
}

// Stop begins a graceful end. A unit that is routed, or has requests whose drain
// time is not over, must not be stopped: that is checked here.
func (p platform) Stop(_ context.Context, id string) error {
	w := p.w
	w.mayCrash("before stop " + id)
	if w.now.Before(w.partition) {
		return errPartition
	}
	u := w.units[id]
	if u == nil || u.stopping || u.exited != nil {
		return nil
	}
	w.mayStop(u)
	u.stopping = true
	grace := time.Duration(u.spec.StopGraceMS) * time.Millisecond
	u.stopsAt = w.now.Add(min(w.between(time.Millisecond, 12*time.Second), grace))
	if u.spec.Env["behaviour"] == "stubborn" {
		u.stopsAt = w.now.Add(grace)
	}
	w.mayCrash("after stop " + id)
	if w.chance(0.03) {
		return errLost
	}
	return nil
}

func (p platform) Remove(_ context.Context, id string) error {
	w := p.w
	w.mayCrash("before remove " + id)
	if w.now.Before(w.partition) {
		return errPartition
	}
	if u := w.units[id]; u != nil {
		if u.exited == nil && !u.stopping {
			w.mayStop(u)
		}
		w.cut(u, "was removed")
	}
	w.displace(id)
	if w.chance(0.03) {
		return errLost
	}
	return nil
}

func (p platform) List(_ context.Context, env rollout.Key) ([]rollout.Observed, error) {
	w := p.w
	w.mayCrash("at list")
	if w.chance(0.005) {
		w.partition = w.now.Add(w.between(0, 10*time.Second))
		w.tell("fault: the platform is cut off until %s", w.partition.Sub(epoch))
	}
	if w.now.Before(w.partition) {
		return nil, errPartition
	}
	var out []rollout.Observed
	for _, id := range w.ids() {
		if u := w.units[id]; u.env == env {
			out = append(out, w.observe(u))
		}
	}
	return out, nil
}

// observe is what a prober would say of a unit.
func (w *world) observe(u *unit) rollout.Observed {
	o := rollout.Observed{ID: u.ID, Component: u.Component, Release: u.Release, Spec: u.Spec, StartedAt: u.startedAt.Add(w.skew)}
	if u.spec.Port != 0 {
		o.Address = u.ID + ":80"
	}
	switch {
	case u.exited != nil:
		o.Phase, o.Exit, o.Tail = rollout.Exited, u.exited, []string{"farewell"}
	case u.stopping:
		o.Phase = rollout.Stopping
	case !u.probed && w.chance(0.5):
		o.Phase = rollout.Unknown
	case u.answering(w.now):
		o.Phase, u.wasReady, u.probed = rollout.Ready, true, true
	case u.wasReady:
		o.Phase, o.Probe = rollout.Unready, "the probe failed"
	default:
		o.Phase, o.Probe, u.probed = rollout.Starting, "the probe failed", true
	}
	return o
}

func (p platform) Changes() <-chan struct{} { return p.w.changed }

// artifacts says whether the bytes of a spec are on hand.
type artifacts struct{ w *world }

func (a artifacts) Check(_ context.Context, spec release.Spec) error {
	if a.w.missing[spec.Tree] {
		return fault.New(fault.Unavailable, "tree %s is not on hand", spec.Tree)
	}
	return nil
}

// faultyStore adds store errors, lost replies and crashes around a store, and
// checks that no state changes without an entry (I4).
type faultyStore struct {
	*Store
	w *world
}

var _ engine.Store = faultyStore{}

func (s faultyStore) Commit(ctx context.Context, env rollout.Key, version int64, next rollout.State, entries []record.Entry) (int64, error) {
	s.w.mayCrash("before commit")
	if s.w.chance(0.01) {
		return 0, errors.New("database is locked")
	}
	if len(entries) == 0 {
		s.w.violate("I4", "a state was committed without an entry")
	}
	s.checkBegun(env, next, entries)
	s.w.checkEvidence(s.Store.peek(env), next)
	s.checkForward(env, s.peek(env), next)
	v, err := s.Store.Commit(ctx, env, version, next, entries)
	if err != nil {
		return v, err
	}
	for _, e := range entries {
		s.w.tell("%-18s %s%s", e.Kind, e.Instance, because(e.Reason))
	}
	s.w.mayCrash("after commit")
	if s.w.chance(0.01) {
		return 0, errLost
	}
	return v, nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return "  (" + reason + ")"
}
