package rollout

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Hooks are one-off instances of a component's release with a command of their own:
// migrations, smoke tests. Each runs once in a rollout, in the order in which they
// are declared; how it ended, with its last lines, is in the record.

const (
	tailLines   = 10               // last output lines of a hook that the record keeps
	hookTimeout = 10 * time.Minute // of a hook that declares none
)

// HookKey names a run of a component's hook within a rollout.
func HookKey(component, when string, index int) string {
	return component + "/" + when + "/" + strconv.Itoa(index)
}

// hooked runs the hooks of a component for one occasion, one after the other, and
// says whether all have ended well.
func (d *decider) hooked(r *Rollout, t *Target, w want, when string) bool {
	for i, h := range w.Hooks {
		if h.When != when {
			continue
		}
		key := HookKey(w.Name, when, i)
		run, begun := r.Hooks[key]
		limit := cmp.Or(h.Timeout, hookTimeout)
		switch {
		case begun && run.Failure != nil && when != HookRollback:
			return false // it is being put back
		case begun && !run.EndedAt.IsZero():
			continue
		case begun:
			till := run.StartedAt.Add(limit)
			d.wait(Cause{What: fmt.Sprintf("%s: the hook %s to end, until %s", w.Name, when, till.UTC().Format(time.TimeOnly)), Since: run.StartedAt, Till: till})
			d.wakeAt(till)
		case !d.mayRun(w):
			d.wait(Cause{What: w.Name + ": the instance before it to be gone", Since: d.now})
		default:
			o := Order{
				Instance:  Instance{ID: d.newID(w.Name), Component: w.Name, Release: t.Release, Spec: h.Spec, Hook: when},
				OrderedAt: d.now, Start: limit, Grace: w.Grace, Volumes: w.Volumes,
			}
			d.writes(&w.Component, when)
			d.add(o)
			r.Hooks = with(r.Hooks, key, HookRun{Instance: o.ID, StartedAt: d.now})
			r.ProgressAt = d.now
			d.event(Event{Kind: "hook.ordered", Instance: o.ID, Release: o.Release, Data: o.holds(map[string]string{"component": w.Name, "when": when})})
		}
		return false
	}
	return true
}

// mayRun says whether a hook of a component may run beside what is there: a
// component that is alone is gone before its hook runs.
func (d *decider) mayRun(w want) bool {
	w.Replicas = 1
	return d.mayJoin(w)
}

// hasHooks says whether any hook is to run once the traffic has moved.
func (d *decider) hasHooks(r *Rollout) bool {
	t, when := occasion(r)
	for _, c := range t.changed(r) {
		for _, h := range c.Hooks {
			if h.When == when {
				return true
			}
		}
	}
	return false
}

// occasion is whose hooks run once the traffic has moved: of the new release that
// was deployed, or of the one that a rollback leaves.
func occasion(r *Rollout) (*Target, string) {
	if r.Kind == KindRollback {
		return r.From, HookRollback
	}
	return &r.To, HookAfter
}

// hooksAfter runs the hooks after the switch and says whether they have ended.
func (d *decider) hooksAfter(r *Rollout) bool {
	t, when := occasion(r)
	return d.runAll(r, t, when, t.changed(r))
}

// hooksBack runs the hooks on rollback of a release that is put back: of the
// components that had their turn.
func (d *decider) hooksBack(r *Rollout) bool {
	var reached []Component
	for _, c := range r.To.changed(r) {
		if d.reached(r, c.Name) {
			reached = append(reached, c)
		}
	}
	return d.runAll(r, &r.To, HookRollback, reached)
}

func (d *decider) runAll(r *Rollout, t *Target, when string, components []Component) bool {
	done := true
	for _, c := range components {
		done = d.hooked(r, t, want{Component: c, target: t}, when) && done
	}
	return done
}

// changed lists the components of one side of a rollout that it replaces.
func (t *Target) changed(r *Rollout) []Component {
	var out []Component
	if t == nil {
		return nil
	}
	for _, c := range t.Components {
		if c.Kind != KindJob && (r.From.find(c.Name, c.Spec) == nil || r.To.find(c.Name, c.Spec) == nil) {
			out = append(out, c)
		}
	}
	return out
}

// lookAtJob brings the order of a hook or job up to date: it ends, is lost, or takes
// too long.
func (d *decider) lookAtJob(o *Order, in *Observed) {
	switch {
	case in != nil && in.Phase == Exited:
		d.markSeen(o)
		f := &Failure{What: exitWords(in.Exit), Exit: in.Exit, Tail: in.Tail}
		if in.Exit != nil && in.Exit.Code == 0 && in.Exit.Signal == "" {
			f = nil
		}
		d.jobEnded(o, f, in)
	case in == nil && o.Seen:
		d.jobEnded(o, &Failure{What: "is gone: the platform no longer has it"}, nil)
	case in == nil && d.o.Attempts[o.ID].Count >= startAttempts:
		d.jobEnded(o, &Failure{What: "could not be started: " + d.o.Attempts[o.ID].Last}, nil)
	case o.Start > 0 && !d.now.Before(o.OrderedAt.Add(o.Start)):
		d.jobEnded(o, &Failure{What: "did not end within " + o.Start.String()}, in)
	default:
		if in != nil {
			d.markSeen(o)
		}
		if o.Start > 0 {
			d.wakeAt(o.OrderedAt.Add(o.Start))
		}
	}
}

// jobEnded records how a hook or job ended; a failed one before or after the switch
// puts the rollout back.
func (d *decider) jobEnded(o *Order, f *Failure, in *Observed) {
	data := map[string]string{"when": o.Hook}
	why := "it ended with status 0"
	if f != nil {
		f.Instance, f.Component, why = o.ID, o.Component, f.What
		if f.Exit != nil {
			data["code"] = strconv.Itoa(f.Exit.Code)
		}
	}
	if in != nil && len(in.Tail) > 0 {
		data["output"] = strings.Join(in.Tail[max(0, len(in.Tail)-tailLines):], "\n")
		if f != nil {
			f.Tail = in.Tail
		}
	}
	d.event(Event{Kind: "hook.ended", Instance: o.ID, Release: o.Release, Reason: why, Data: data})
	d.leave(o, "it has run")
	if o.Hook == HookSchedule {
		d.scheduled(o, f)
		return
	}
	r := d.s.Rollout
	if r == nil {
		return
	}
	for key, run := range r.Hooks {
		if run.Instance == o.ID {
			run.EndedAt, run.Failure = d.now, f
			r.Hooks = with(r.Hooks, key, run)
			break
		}
	}
	r.ProgressAt = d.now
	switch {
	case f == nil:
		d.migrated(r, o)
	case o.Hook == HookBefore || o.Hook == HookAfter:
		f.What = "(hook " + o.Hook + ") " + f.What
		d.revert(*f)
	}
}

// endHooks ends what hooks of a rollout still run when it is put back.
func (d *decider) endHooks(r *Rollout) {
	d.endJobs(r.From, "the rollout is put back")
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if o.Hook == "" || o.Hook == HookSchedule || o.Leaving {
			continue
		}
		for key, run := range r.Hooks {
			if run.Instance == o.ID {
				run.EndedAt, run.Failure = d.now, &Failure{What: "was ended: the rollout is put back"}
				r.Hooks = with(r.Hooks, key, run)
				break
			}
		}
		d.leave(o, "the rollout is put back")
	}
}
