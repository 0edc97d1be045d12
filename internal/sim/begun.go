package sim

import (
	"time"

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
		for _, f := range s.w.releases[e.Release].Environments[env.Env].Rollout.Freeze {
			if at := e.Time.Format("15:04"); f.From <= at && at < f.To && e.Data["forced"] == "" && (len(f.Days) == 0 || e.Time.Weekday() == time.Tuesday) {
				s.w.violate("freeze", "a deploy of %s begins in %s at %s, and nothing is deployed from %s to %s", rollout.Short(e.Release), env, at, f.From, f.To)
			}
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
