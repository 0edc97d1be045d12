package rollout_test

import (
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestCourse: what is told beforehand is what happens, which is less than what is
// declared where components change that may not run twice.
func TestCourse(t *testing.T) {
	route := &rollout.Route{Path: "/"}
	target := func(strategy, web, db string) rollout.Target {
		s := rollout.Strategy{Kind: strategy}
		if strategy == rollout.Canary {
			s.Stages = []rollout.Stage{{Weight: 10}, {Weight: 50}}
		}
		return rollout.Target{Strategy: s, Components: []rollout.Component{
			{Name: "db", Spec: digest.FromString(db), Replicas: 1, Volumes: []string{"data"}, Route: &rollout.Route{TCP: 5432}},
			{Name: "web", Spec: digest.FromString(web), Replicas: 2, Route: route},
		}}
	}
	for _, c := range []struct {
		strategy, web, db string
		stages            int
		ways              map[string]rollout.Way
	}{
		{rollout.Canary, "B", "A", 2, map[string]rollout.Way{"web": rollout.Beside}},
		{rollout.Canary, "A", "B", 0, map[string]rollout.Way{"db": rollout.Replaced}},
		{rollout.Canary, "B", "B", 2, map[string]rollout.Way{"web": rollout.Beside, "db": rollout.Replaced}},
		{rollout.Rolling, "B", "B", 0, map[string]rollout.Way{"web": rollout.Rolled, "db": rollout.Replaced}},
		{rollout.Recreate, "B", "A", 0, map[string]rollout.Way{"web": rollout.Replaced}},
		{rollout.Canary, "A", "A", 0, map[string]rollout.Way{}},
	} {
		from := target(c.strategy, "A", "A")
		got := rollout.CourseOf(rollout.State{Current: &from}, target(c.strategy, c.web, c.db))
		if len(got.Stages) != c.stages || !maps.Equal(got.Ways, c.ways) {
			t.Errorf("%s to web %s, db %s: %+v", c.strategy, c.web, c.db, got)
		}
	}
}
