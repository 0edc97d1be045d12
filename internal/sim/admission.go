package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// admitter is the made-up engine.Admitter: policies that are replaced while rollouts are
// in flight, that change their mind without being replaced, and now and then do not answer.
type admitter struct{ w *world }

var _ engine.Admitter = admitter{}

func (a admitter) Admit(_ context.Context, _ time.Time, p rollout.Plea) (rollout.Admission, error) {
	w := a.w
	if !w.judged {
		w.admitted[granted{p.Key, p.Release}] = true
		return rollout.Admission{Release: p.Release, Admitted: true}, nil
	}
	w.mayCrash("while the policy is asked")
	w.silent[p.Key] = w.chance(0.01)
	if w.silent[p.Key] {
		w.tell("fault: the policy of %s does not answer", p.Key)
		return rollout.Admission{}, errors.New("the policy does not answer")
	}
	ok := w.admits(p.Key, p.Release)
	if ok {
		w.admitted[granted{p.Key, p.Release}] = true
	}
	out := rollout.Admission{Release: p.Release, Admitted: ok, Data: map[string]string{"policy": "simulated"}}
	if v := w.policies[p.Key]; v > 0 {
		out.Policy = digest.FromString(fmt.Sprint("policy ", v))
	}
	if !ok {
		out.Why = "simulated: it does not like it"
	}
	return out, nil
}

// Keep is engine.Admitter.Keep: nothing is judged by facts here.
func (a admitter) Keep(context.Context, digest.Digest, []byte) error { return nil }

// granted is a release that once was admitted to an environment.
type granted struct {
	key     rollout.Key
	release digest.Digest
}

// admits is what the environment's policy says at this moment: it likes most releases,
// each version others. There is none before somebody sets one.
func (w *world) admits(key rollout.Key, release digest.Digest) bool {
	v := w.policies[key]
	return v == 0 || digest.FromString(fmt.Sprint(v, release)).Encoded()[0] >= '3'
}

// setPolicy replaces a policy, or has it think otherwise.
func (w *world) setPolicy(key rollout.Key) {
	w.policies[key]++
	w.tell("operator: policy %d for %s", w.policies[key], key)
}

// checkStart is I2's half about policies: what a rollout brings is started only while
// its release is admitted.
func (w *world) checkStart(s rollout.State, key rollout.Key, in rollout.Instance) {
	r := s.Rollout
	if r == nil || r.To.Release != in.Release || r.From != nil && r.From.Release == in.Release {
		return
	}
	if (r.Step == rollout.Laying || r.Step == rollout.Shifting || r.Step == rollout.Switching) && (w.silent[key] || !w.admits(key, in.Release)) {
		w.violate("I2", "%s is started and the policy of %s does not admit its release", in.ID, key)
	}
}

// checkForward is that a rollout whose release is not admitted gets no share of the
// traffic that it had not.
func (s faultyStore) checkForward(key rollout.Key, was, next rollout.State) {
	r, before := next.Rollout, was.Rollout
	if r == nil || r.Kind == rollout.KindDown || s.w.admits(key, r.To.Release) {
		return
	}
	begins := before == nil || before.Number != r.Number
	goesOn := !begins && before.Step != r.Step && (r.Step == rollout.Switching || r.Step == rollout.Shifting && before.Step == rollout.Laying)
	if begins || goesOn {
		s.w.violate("I2", "rollout %d in %s goes on to %s and the policy does not admit its release", r.Number, key, r.Step)
	}
}

// checkAdmitted is that nothing is routed of a release that never was admitted.
func (w *world) checkAdmitted(key rollout.Key, t rollout.Table) {
	for _, s := range t.Services {
		for _, b := range s.Backends {
			if u := w.units[b.ID]; u != nil && !w.admitted[granted{key, u.Release}] {
				w.violate("I2", "%s is routed and its release never was admitted to %s", b.ID, key)
			}
		}
	}
}
