package admission

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// memory is what the record of one environment says so far of who was live.
type memory struct {
	next  int64 // first entry that was not read
	past  []stay
	downs map[int]bool // rollouts that take everything down
	lived int          // the last rollout whose release went live
	from  digest.Digest
}

// stay is one time in which a release was live.
type stay struct {
	release digest.Digest
	policy.Stay
}

// read goes on with entries of the environment.
func (m *memory) read(env string, entries []record.Entry) {
	for _, e := range entries {
		m.next = e.Index + 1
		switch e.Kind {
		case "rollout.begun":
			m.downs[e.Rollout] = e.Data["kind"] == rollout.KindDown
		case "release.live":
			m.from = m.leave(e)
			m.lived = e.Rollout
			if !m.downs[e.Rollout] {
				m.enter(env, e.Release, e)
			}
			delete(m.downs, e.Rollout)
		case "rollout.reverting":
			if e.Rollout == m.lived { // after the switch: the one before is live again
				m.leave(e)
				m.enter(env, m.from, e)
			}
		}
	}
}

func (m *memory) enter(env string, d digest.Digest, e record.Entry) {
	if d != "" {
		m.past = append(m.past, stay{d, policy.Stay{Env: env, Since: e.Time.UTC()}})
	}
}

// leave ends the stay that lasts, and says whose it was.
func (m *memory) leave(e record.Entry) digest.Digest {
	if n := len(m.past); n > 0 && m.past[n-1].Till.IsZero() {
		m.past[n-1].Till = e.Time.UTC()
		return m.past[n-1].release
	}
	return ""
}

// staysOf tells where and when a release was live, by the record. It goes on where it
// ended the last time.
func (a *Admission) staysOf(ctx context.Context, app string, d digest.Digest) ([]policy.Stay, error) {
	keys, err := a.Store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	out := []policy.Stay{}
	for _, key := range keys {
		if key.App != app {
			continue
		}
		state, _, err := a.Store.State(ctx, key)
		if err != nil {
			return nil, err
		}
		past, err := a.past(ctx, key)
		if err != nil {
			return nil, err
		}
		for _, s := range past {
			if s.release == d {
				s.Proven = slices.Contains(state.KnownGood, d)
				out = append(out, s.Stay)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b policy.Stay) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Env, b.Env)
	})
	return out, nil
}

func (a *Admission) past(ctx context.Context, key rollout.Key) ([]stay, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.stays[key]
	if m == nil {
		m = &memory{downs: map[int]bool{}}
		a.stays[key] = m
	}
	entries, err := a.Store.Entries(ctx, key, m.next, -1)
	if err != nil {
		return nil, err
	}
	m.read(key.Env, entries)
	return slices.Clone(m.past), nil
}
