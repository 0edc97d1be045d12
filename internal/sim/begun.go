package sim

import (
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// checkBegun is what has to hold at the moment in which a rollout begins, also one
// that waited: whatever was so when it was asked for.
func (s faultyStore) checkBegun(env rollout.Key, next rollout.State, entries []record.Entry) {
	for _, e := range entries {
		if e.Kind != "rollout.begun" || e.Data["kind"] != rollout.KindDeploy {
			continue
		}
		for _, key := range s.w.envs {
			if key.App != env.App {
				continue
			}
			in := s.Store.peek(key)
			if key == env {
				in = next
			}
			if q, bad := in.Quarantine[e.Release]; bad {
				s.w.violate("quarantine", "a deploy of %s begins in %s, and it failed in %s: %s", rollout.Short(e.Release), env, key, q.Why)
			}
		}
	}
}
