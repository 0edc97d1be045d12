package gc

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Release is what keeping needs to know of a release.
type Release struct {
	App    string
	Number int
	Digest digest.Digest
}

// Environment is what keeping needs to know of an environment.
type Environment struct {
	State rollout.State
	Keep  int // known-good releases that stay
}

// Keep gives the releases that stay, each once and in the order given: what is
// live, what a rollout in flight goes to and comes from, what waits, what is kept warm,
// what a rollback leads to, what any instance was ordered by, the last known-good ones of
// each environment, and the newest of each application.
func Keep(releases []Release, envs []Environment) []Release {
	wanted := map[digest.Digest]bool{}
	for _, e := range envs {
		for _, d := range roots(e) {
			wanted[d] = true
		}
	}
	newest := map[string]Release{}
	for _, r := range releases {
		if r.Number >= newest[r.App].Number {
			newest[r.App] = r
		}
	}
	return slices.DeleteFunc(slices.Clone(releases), func(r Release) bool {
		return !wanted[r.Digest] && newest[r.App].Digest != r.Digest
	})
}

func roots(e Environment) []digest.Digest {
	s := e.State
	var out []digest.Digest
	if s.Current != nil {
		out = append(out, s.Current.Release)
	}
	if r := s.Rollout; r != nil {
		out = append(out, r.To.Release)
		if r.From != nil {
			out = append(out, r.From.Release)
		}
	}
	for _, q := range s.Queue {
		out = append(out, q.To.Release)
	}
	if s.Warm != nil {
		out = append(out, s.Warm.Target.Release)
	}
	if to := s.RollbackTo(); to != "" {
		out = append(out, to) // whatever Keep says: a rollback stays possible
	}
	for _, o := range s.Instances {
		out = append(out, o.Release)
	}
	good := s.KnownGood // oldest first
	return append(out, good[max(0, len(good)-e.Keep):]...)
}
