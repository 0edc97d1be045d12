package sim

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// operate is what people do: deploy something, go back, say something to what is in
// flight, now and then, in one environment or another. Clocks jump, too.
func (r *runner) operate() {
	w := r.w
	if w.now.Before(r.next) {
		return
	}
	r.next = w.now.Add(w.between(0, 20*time.Second) * 2 / time.Duration(1+len(r.tended)))
	if w.chance(0.05) {
		w.skew, w.skewedAt = w.between(-40*time.Second, 40*time.Second), w.now
		w.tell("fault: the server's clock jumps to %s", w.skew)
	}
	t := r.tended[w.rng.IntN(len(r.tended))]
	t.due = w.now
	if w.judged && w.chance(0.15) {
		w.setPolicy(t.key)
		w.counts.Policies++
	}
	if w.chance(0.05) {
		r.lose(t.key)
	}
	r.guarded(func() {
		var err error
		switch w.rng.IntN(8) {
		case 0, 1:
			err = r.goBack(t.key)
		case 2:
			switch w.rng.IntN(8) {
			case 0:
				err = r.down(t.key)
			case 1:
				err = r.lift(t.key)
			default:
				err = r.say(t.key, commands[w.rng.IntN(len(commands))])
			}
		default:
			err = r.deploy(t.key)
		}
		if err != nil {
			w.tell("operator: refused: %v", strings.SplitN(err.Error(), "\n", 2)[0])
		}
	})
	r.attend()
}

// lose takes an artifact of some release away: a disk that fails, an operator's rm.
// Half of the time it is one that a rollback would need.
func (r *runner) lose(key rollout.Key) {
	w := r.w
	from := slices.Sorted(maps.Keys(w.releases))
	if back := r.state(key).RollbackTo(); back != "" && w.rng.IntN(2) == 0 {
		from = []digest.Digest{back}
	}
	if len(from) == 0 {
		return
	}
	all := trees(w.releases[from[w.rng.IntN(len(from))]])
	tree := all[w.rng.IntN(len(all))]
	w.missing[tree] = true
	w.tell("fault: tree %s is gone", tree)
}

// commands that people give, those that help more often.
var commands = []string{
	rollout.VerbPause, rollout.VerbResume, rollout.VerbResume, rollout.VerbApprove, rollout.VerbApprove, rollout.VerbAbort, rollout.VerbRetry,
}

// goBack rehearses a rollback and then does it: what the rehearsal says holds.
func (r *runner) goBack(key rollout.Key) error {
	w, ctx := r.w, context.Background()
	w.counts.Rehearsals++
	ready, err := r.engine.Rehearse(ctx, w.clock(), key)
	if err != nil {
		return err
	}
	w.tell("operator: rollback of %s, which should work: %v", key, ready.OK)
	_, err = r.engine.Rollback(ctx, w.clock(), "operator", key, "", engine.DeployOptions{Reason: "simulated"})
	if err == nil {
		w.counts.Rollbacks++
	} else if k := fault.Of(err).Kind; ready.OK && k != fault.Internal && k != fault.Conflict && !strings.Contains(err.Error(), "could not be found out") {
		w.violate("rehearsal", "a rollback should work and is refused: %v", err)
	}
	return err
}

func (r *runner) say(key rollout.Key, verb string) error {
	r.w.tell("operator: %s %s", verb, key)
	r.w.counts.Said++
	_, err := r.engine.Control(context.Background(), r.w.clock(), "operator", key, rollout.Command{Verb: verb, Reason: "simulated"})
	return err
}

// down takes everything of an environment away.
func (r *runner) down(key rollout.Key) error {
	r.w.tell("operator: down %s", key)
	_, err := r.engine.Down(context.Background(), r.w.clock(), "operator", key, "simulated")
	if err == nil {
		r.w.counts.Downs++
	}
	return err
}

// lift lets a release be deployed again that failed, if there is one.
func (r *runner) lift(key rollout.Key) error {
	bad := slices.Sorted(maps.Keys(r.state(key).Quarantine))
	if len(bad) == 0 {
		return nil
	}
	r.w.tell("operator: lift the quarantine of %s", rollout.Short(bad[0]))
	_, err := r.engine.Lift(context.Background(), r.w.clock(), "operator", key.App, bad[0], "simulated")
	if err == nil {
		r.w.counts.Lifted++
	}
	return err
}

// deploy asks for a new release, or for one that another environment has.
func (r *runner) deploy(key rollout.Key) error {
	w, ctx := r.w, context.Background()
	d, err := r.choose(ctx, key)
	if err != nil {
		return err
	}
	o := engine.DeployOptions{Reason: "simulated", Queue: w.rng.IntN(4) == 0, Supersede: w.rng.IntN(4) == 0, Force: w.rng.IntN(16) == 0}
	w.tell("operator: deploy %s to %s %s%s", rollout.Short(d), key, describe(w.releases[d], key), manner(o))
	if o.Force {
		w.counts.Forced++
		w.dataOf(key).excused = true
	}
	if _, err = r.engine.Deploy(ctx, w.clock(), "operator", key, d, o); err == nil {
		w.counts.Deploys++
		r.checkOnHand(key, d)
	}
	return err
}

// choose gives the release to deploy: now and then one that is live in another
// environment, on its way there, or failed there.
func (r *runner) choose(ctx context.Context, key rollout.Key) (digest.Digest, error) {
	w := r.w
	for _, other := range w.envs {
		if other == key || other.App != key.App || w.rng.IntN(2) == 0 {
			continue
		}
		s := r.state(other)
		bad := slices.Sorted(maps.Keys(s.Quarantine))
		switch {
		case len(bad) > 0 && w.rng.IntN(3) == 0:
			return bad[len(bad)-1], nil
		case s.Rollout != nil && w.rng.IntN(2) == 0 && s.Rollout.Kind == rollout.KindDeploy:
			return s.Rollout.To.Release, nil
		case s.Current != nil:
			w.counts.Promoted++
			return s.Current.Release, nil
		}
	}
	rel := w.draw(key.App, &r.made)
	stored, err := r.engine.AddRelease(ctx, w.clock(), "operator", rel)
	if err == nil {
		w.releases[stored.Digest] = rel
	}
	return stored.Digest, err
}

func manner(o engine.DeployOptions) string {
	words := ""
	switch {
	case o.Supersede:
		words = ", superseding"
	case o.Queue:
		words = ", waiting"
	}
	if o.Force {
		words += ", forced"
	}
	return words
}

// attend is a person who sooner or later approves what waits and resumes what is
// paused, at once when there are no faults any more.
func (r *runner) attend() {
	for _, t := range r.tended {
		s := r.state(t.key)
		if s.Rollout == nil || r.w.faults && r.w.rng.IntN(3) > 0 {
			continue
		}
		if s.Rollout.Paused != nil {
			r.guarded(func() { _ = r.say(t.key, rollout.VerbResume) })
			t.due = r.w.now
		}
		if slices.ContainsFunc(t.waiting, func(s string) bool { return strings.HasPrefix(s, "a person to approve") }) {
			r.guarded(func() { _ = r.say(t.key, rollout.VerbApprove) })
			t.due = r.w.now
		}
	}
}
