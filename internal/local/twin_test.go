package local

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func probedBy(command ...string) func(*release.Spec) {
	return func(s *release.Spec) {
		keeping(s)
		s.Port = 8080
		s.Health = &release.Health{Exec: command, IntervalMS: 50, TimeoutMS: 3000, Successes: 1, Failures: 2, StartMS: 30_000}
	}
}

// A health check's command runs in a twin: it reaches the program by the loopback and
// has its secret, but not its tmpfs, volume or processes; what it says decides.
func TestExecProbe(t *testing.T) {
	w := newWorld(t, withSecrets)
	w.start("flaps", spec("flaps", probedBy("/bin/guest", "probes")))
	o := w.untilPhase("flaps", rollout.Ready)
	ask(t, "http://"+o.Address+"/sick")
	o = w.untilPhase("flaps", rollout.Unready)
	if !strings.Contains(o.Probe, "/bin/guest probes: the command exited with status 6: the program says 503") {
		t.Errorf("the probe says %q", o.Probe)
	}
	ask(t, "http://"+o.Address+"/well")
	w.untilPhase("flaps", rollout.Ready)
	w.reopen(t)
	w.untilPhase("flaps", rollout.Ready)
}

// A probe that hangs is ended at its timeout and counts as a failure; its twin goes
// with the instance, also when both are killed.
func TestExecProbeThatHangs(t *testing.T) {
	w := newWorld(t, withSecrets)
	w.start("flaps", spec("flaps", probedBy("/bin/guest", "hangs"), func(s *release.Spec) { s.Health.TimeoutMS = 200 }))
	o := w.until("flaps", func(o rollout.Observed) bool { return o.Probe != "" })
	if o.Phase != rollout.Starting || !strings.Contains(o.Probe, "did not end within 200ms") {
		t.Errorf("%s, the probe says %q", o.Phase, o.Probe)
	}
}

// A shim that is killed amid a probe takes the twin with it; newWorld sees that nothing
// of either is left on the host.
func TestShimKilledAmidAnExecProbe(t *testing.T) {
	w := newWorld(t, withSecrets)
	w.start("flaps", spec("flaps", probedBy("/bin/guest", "hangs"), func(s *release.Spec) { s.Health.TimeoutMS = 60_000 }))
	for deadline := time.Now().Add(20 * time.Second); !busy(w.twinCgroup("flaps")); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there is no twin")
		}
	}
	w.kill(w.shimPID("flaps"))
	w.untilPhase("flaps", rollout.Exited)
}

func ask(t *testing.T, url string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
}
