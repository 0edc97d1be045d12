package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestTwoOperators: of two people who say something at the same moment, one is heard and
// the other is told; and of two deploys none is lost and never are there two at once.
func TestTwoOperators(t *testing.T) {
	a := newHost(t).staged("")
	a.deploy()
	run := a.load(100, "Mark")
	a.release("0", "1").ok()
	a.asksFor(2)
	for _, verb := range []string{"pause", "resume", "approve"} {
		dana, eve := a.background("rollout", verb), a.background("rollout", verb)
		a.oneOfTwo(dana(), eve())
	}
	a.settled()
	a.oneRelease("1")

	// Both deploy: one begins, and the other is refused, or waits if it said so.
	a.edit("ashlar.yaml", `MARK: "1"`, `MARK: "2"`)
	a.ashlar("build").ok()
	dana, eve := a.background("deploy", "production", "--yes", "--detach"), a.background("deploy", "production", "--yes", "--detach")
	a.oneOfTwo(dana(), eve())
	a.asksFor(3)
	a.edit("ashlar.yaml", `MARK: "2"`, `MARK: "3"`)
	a.ashlar("build").ok()
	dana, eve = a.background("deploy", "production", "--yes", "--detach", "--queue", "--reason", "dana's"), a.background("deploy", "production", "--yes", "--detach", "--queue", "--reason", "eve's")
	places := dana().ok().stdout + eve().ok().stdout
	for place := 1; place <= 2; place++ {
		if want := fmt.Sprintf("waits behind rollout 3, at place %d", place); strings.Count(places, want) != 1 {
			t.Errorf("%q is expected once in:\n%s", want, places)
		}
	}

	// Both take over: the later one is live at last, and each rollout has ended once.
	a.edit("ashlar.yaml", `MARK: "3"`, `MARK: "4"`)
	a.ashlar("build").ok()
	dana, eve = a.background("deploy", "production", "--yes", "--detach", "--supersede"), a.background("deploy", "production", "--yes", "--detach", "--supersede")
	dana().ok()
	eve().ok()
	a.await("the last rollout to wait for an approval", func() error {
		s := a.status()
		if r := s.State.Rollout; r == nil || len(s.State.Queue) > 0 || r.Step != rollout.Shifting || len(s.Why) == 0 {
			return fmt.Errorf("waits for %v", s.Waiting)
		}
		return nil
	})
	a.ashlar("rollout", "approve", "--watch").ok()
	a.unharmed(run)
	a.oneRelease("4")
	a.neverTwo()
	a.ashlar("log", "verify").ok()
}

// oneOfTwo expects that one of two commands succeeded and the other met a conflict.
func (a *app) oneOfTwo(one, other result) {
	a.t.Helper()
	if one.code > other.code {
		one, other = other, one
	}
	one.ok()
	other.failed(4, "rollout ")
}

// neverTwo expects of the record that each rollout began after the one before had ended.
func (a *app) neverTwo() {
	a.t.Helper()
	inFlight := 0
	for _, e := range a.entries(0) {
		switch e.Kind {
		case "rollout.begun":
			inFlight++
		case "rollout.live", "rollout.put-back", "rollout.superseded":
			inFlight--
		}
		if inFlight < 0 || inFlight > 1 {
			a.t.Errorf("%d rollouts are in flight at entry %d, %s", inFlight, e.Index, e.Kind)
		}
	}
}
