package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
)

// TestWarmRollback: while the set before is kept warm, a rollback starts nothing. It takes
// no longer than to say so: the target is 50 ms from the request until the old release
// answers everything.
func TestWarmRollback(t *testing.T) {
	a := newHost(t).guest()
	a.edit("ashlar.yaml", "    replicas: 2\n", "    replicas: 2\n    strategy: {blue-green: {warm: 10m}}\n")
	a.deploy()
	var took []time.Duration
	for i := range 5 {
		before := ids(a.settled())
		a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
		a.deploy()
		a.edit("ashlar.yaml", `MARK: "1"`, `MARK: "0"`)
		if i == 0 {
			a.ashlar("status", "production").ok().says("warm: release 1 until ")
		}
		run := a.load(400, "Mark")
		a.awaitMarker(run, "1")
		begun := time.Now()
		if _, err := a.client.Rollback(t.Context(), api.BeginRequest{App: a.name, Env: a.env, Release: "1", Reason: "it was better"}); err != nil {
			t.Fatal(err)
		}
		a.awaitMarker(run, "0")
		r := a.unharmed(run)
		took = append(took, r.AllOn("0").Sub(begun))
		if now := ids(a.settled()); !slices.Equal(now, before) {
			t.Errorf("the rollback left %v running; warm were %v", now, before)
		}
	}
	slices.Sort(took)
	t.Logf("from the request for a rollback to all traffic: %v, median %s", took, took[len(took)/2])
	if took[len(took)/2] > 250*time.Millisecond {
		t.Errorf("the median is %s; the target on a quiet machine is 50 ms", took[len(took)/2])
	}
	a.ashlar("rollback", "production", "1", "--yes").ok().says("nothing to change")
	a.ashlar("log", "verify").ok()
}
