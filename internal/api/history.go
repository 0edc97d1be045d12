package api

import (
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Outcomes of a rollout in a history, beyond those of package rollout.
const stillInFlight = "in flight"

// rollouts folds one environment's entries into its rollouts, oldest first.
func rollouts(entries []record.Entry) []HistoryRollout {
	var out []HistoryRollout
	last := func(number int) *HistoryRollout {
		if n := len(out); n > 0 && out[n-1].Number == number {
			return &out[n-1]
		}
		return &HistoryRollout{} // of a rollout whose beginning is not among the entries
	}
	for _, e := range entries {
		switch e.Kind {
		case "rollout.begun":
			out = append(out, HistoryRollout{
				Env: e.Env, Number: e.Rollout, Kind: e.Data["kind"], From: e.Data["from"], To: e.Data["to"],
				Release: e.Release, Actor: e.Actor, Reason: givenReason(e), Begun: e.Time, Outcome: stillInFlight,
			})
		case "release.live":
			last(e.Rollout).Live = e.Time
		case "rollout." + string(rollout.Live), "rollout." + string(rollout.PutBack), "rollout." + string(rollout.Superseded):
			r := last(e.Rollout)
			r.Ended, r.Why, r.Outcome = e.Time, strings.TrimPrefix(e.Reason, "put back: "), e.Kind[len("rollout."):]
		}
	}
	return out
}

// givenReason is what somebody gave as the reason; not what stands in for it.
func givenReason(e record.Entry) string {
	if e.Reason == e.Data["kind"]+" of release "+e.Data["to"] {
		return ""
	}
	return e.Reason
}

// place marks where the releases stand in one environment.
func (h *History) place(s rollout.State) {
	for i := range h.Releases {
		r := &h.Releases[i]
		if s.Current != nil && s.Current.Release == r.Digest {
			r.LiveIn = append(r.LiveIn, s.Env)
			continue
		}
		if slices.Contains(s.KnownGood, r.Digest) {
			r.KnownGood = append(r.KnownGood, s.Env)
		}
	}
}

func (h *History) sort() {
	slices.SortStableFunc(h.Rollouts, func(a, b HistoryRollout) int { return a.Begun.Compare(b.Begun) })
}
