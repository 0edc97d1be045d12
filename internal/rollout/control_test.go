package rollout_test

import (
	"reflect"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestNobodyCommands: an approval by nobody is none, and so is any other word.
func TestNobodyCommands(t *testing.T) {
	st := newStage()
	for _, line := range []string{
		"begin deploy release 1 blue-green approve: web=specA x1 route /", "decide", "observe web-1 ready", "router ack", "decide", "router ack", "decide", "decide", "decide",
		"begin deploy release 2 blue-green approve: web=specB x1 route /", "decide", "observe web-2 ready", "decide", "router ack", "decide",
	} {
		if _, err := st.run(line); err != nil {
			t.Fatal(line, err)
		}
	}
	if r := st.state.Rollout; r == nil || r.Step != rollout.Shifting {
		t.Fatalf("it does not wait for an approval: %+v", r)
	}
	for _, verb := range []string{rollout.VerbApprove, rollout.VerbPause, rollout.VerbResume, rollout.VerbAbort, "bless"} {
		next, events, err := rollout.Control(st.now, st.state, "", rollout.Command{Verb: verb})
		if err == nil || fault.Of(err).Kind != fault.Invalid || len(events) > 0 || !reflect.DeepEqual(next, st.state) {
			t.Errorf("%s by nobody: %v, %v", verb, events, err)
		}
	}
	if _, _, err := rollout.Control(st.now, st.state, "dana", rollout.Command{Verb: "bless"}); err == nil || fault.Of(err).Kind != fault.Invalid {
		t.Errorf("a verb that is none: %v", err)
	}
	if _, _, err := rollout.Control(st.now, st.state, "dana", rollout.Command{Verb: rollout.VerbApprove}); err != nil {
		t.Error(err)
	}
}
