package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Rehearse finds out whether a rollback of an environment would work now, without
// doing any of it: whether there is a release to go back to, whether everything that
// it needs is on hand, mounts and is readable, whether there is room for what it would
// start, whether its data contract holds and its strategy still is possible. The answer is kept in the state; a change of it is
// in the record.
func (e *Engine) Rehearse(ctx context.Context, now time.Time, key Key) (rollout.Readiness, error) {
	found, _, err := e.tryOut(ctx, now, key)
	return found, err
}

// tryOut is Rehearse; kept is false when the answer could not be kept, as something
// else was being done in the environment.
func (e *Engine) tryOut(ctx context.Context, now time.Time, key Key) (found rollout.Readiness, kept bool, err error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return rollout.Readiness{}, false, fmt.Errorf("read the state of %s: %w", key, err)
	}
	found = rollout.Readiness{Release: state.RollbackTo(), Since: now.UTC()}
	if found.Release == "" {
		found.Why = []string{"no release before the current one has proven itself"}
	} else {
		found.Why = e.obstacles(ctx, now, key, state, found)
	}
	found.OK = len(found.Why) == 0
	m := e.memory(key)
	if !m.TryLock() {
		return found, false, nil
	}
	defer m.Unlock()
	err = e.changeLocked(ctx, now, Actor, key, func(s rollout.State) (rollout.State, []rollout.Event, error) {
		if s.RollbackTo() != found.Release {
			return s, nil, nil // the next rehearsal looks at the other one
		}
		if was := s.Readiness; was != nil && was.Release == found.Release && was.OK == found.OK && slices.Equal(was.Why, found.Why) {
			found = *was
			return s, nil, nil
		}
		next, events := s.Rehearsed(found)
		return next, events, nil
	})
	return found, true, err
}

// obstacles says why a rollback would not work.
func (e *Engine) obstacles(ctx context.Context, now time.Time, key Key, state rollout.State, to rollout.Readiness) []string {
	stored, rel, err := e.release(ctx, to.Release)
	if err != nil {
		return []string{fault.Of(err).What}
	}
	target, err := TargetOf(stored, rel, key.Env)
	if err != nil {
		return []string{fault.Of(err).What}
	}
	platform := e.Platforms[target.Platform]
	if platform == nil {
		return []string{fmt.Sprintf("platform %q is not known to this server", target.Platform)}
	}
	var why []string
	state.Rollout = nil // one in flight does not keep anybody from going back
	if _, _, err := rollout.Begin(now, state, rollout.Request{Kind: rollout.KindRollback, To: target, Actor: Actor}); err != nil {
		why = append(why, fault.Of(err).What)
	}
	if a := e.admission(ctx, now, &rollout.Plea{Key: key, Release: to.Release, Number: target.Number, Kind: rollout.KindRollback, Actor: Actor}); a != nil && a.Error != "" {
		why = append(why, "whether the policy admits it could not be found out: "+a.Error)
	} else if a != nil && !a.Admitted {
		why = append(why, "the policy does not admit it: "+a.Why)
	}
	components := rel.Environments[key.Env].Components
	rehearser, able := platform.(Rehearser)
	for _, name := range sortedKeys(components) {
		spec := components[name].Spec
		if err := e.Artifacts.Check(ctx, spec); err != nil {
			why = append(why, name+": "+fault.Of(err).What)
			continue
		}
		if !able {
			continue
		}
		if err := rehearser.Rehearse(ctx, key, spec); err != nil {
			why = append(why, name+": "+fault.Of(err).What)
		}
	}
	if more := starts(state, target); able && len(more) > 0 {
		if err := rehearser.Room(ctx, key, more); err != nil {
			why = append(why, fault.Of(err).What)
		}
	}
	return why
}

// starts counts the instances that a rollback would start beside what runs, by component:
// neither those that are there, such as a warm set, nor those that take the place of others.
func starts(s rollout.State, to rollout.Target) map[string]int {
	ways := rollout.CourseOf(s, to).Ways
	more := map[string]int{}
	for _, c := range to.Components {
		n := c.Replicas
		for _, o := range s.Instances {
			if o.Component == c.Name && o.Spec == c.Spec && !o.Leaving && o.Hook == "" {
				n--
			}
		}
		if ways[c.Name] == rollout.Rolled {
			n = min(n, to.Strategy.Surge)
		}
		if n > 0 && c.Kind != rollout.KindJob && ways[c.Name] != rollout.Replaced {
			more[c.Name] = n
		}
	}
	return more
}
