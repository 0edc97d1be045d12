package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
)

var (
	seed  = flag.Uint64("seed", 0, "of the moments at which TestKilledServer kills; 0: by the clock")
	kills = flag.Int("kills", 20, "how often TestKilledServer kills")
)

// The server is killed at random moments of deploys under load. No request fails;
// each time the next server says what it goes on with and brings it to an end; and
// at last there is one release and a record that verifies.
func TestKilledServer(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with the same moments: go test ./test/ -run TestKilledServer -seed %d", *seed)
	a := newHost(t).guest()
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "0", START_MS: "100"`)
	a.deploy()
	quick, slow := a.load(150, "Mark"), a.keepAsking(6, 50*time.Millisecond)
	k := &killer{app: a, rand: rand.New(rand.NewPCG(*seed, 1)), steps: map[string]int{}, outcomes: map[int]int{}}
	k.measure()
	for i := range *kills {
		k.round(i + 2)
	}
	t.Logf("killed in steps: %v; ends of the deploys by exit status: %v", k.steps, k.outcomes)
	if inFlight := *kills - k.steps["none"]; inFlight < *kills/4 {
		t.Errorf("only %d of %d kills met a rollout in flight", inFlight, *kills)
	}
	a.edit("ashlar.yaml", k.mark, `MARK: "last"`)
	a.deploy()
	a.unharmed(quick)
	a.unharmed(slow)
	a.oneRelease("last")
	a.ashlar("log", "verify").ok().says("the record is intact")
}

// killer kills a server again and again.
type killer struct {
	*app
	rand     *rand.Rand
	mark     string        // in ashlar.yaml now
	whole    time.Duration // from the start of a deploy to its end
	rollout  time.Duration // from the rollout's begin to its end
	steps    map[string]int
	outcomes map[int]int
}

// measure deploys once without a kill.
func (k *killer) measure() {
	k.t.Helper()
	k.mark = `MARK: "0"`
	k.next(1)
	r := k.deploy()
	last := k.settled().State.LastResult
	k.whole, k.rollout = r.took, last.EndedAt.Sub(last.StartedAt)
	k.t.Logf("undisturbed a deploy takes %s, of which the rollout %s", k.whole, k.rollout)
}

func (k *killer) next(n int) {
	k.t.Helper()
	now := fmt.Sprintf("MARK: %q", fmt.Sprint(n))
	k.edit("ashlar.yaml", k.mark, now)
	k.mark = now
}

// round deploys, kills the server meanwhile, starts another and looks at what
// becomes of the deploy.
func (k *killer) round(n int) {
	k.t.Helper()
	from := k.head()
	said := k.said.len()
	k.next(n)
	if bad := k.rand.IntN(4) == 0; bad {
		k.edit("ashlar.yaml", "serves]", "fails]")
		defer k.edit("ashlar.yaml", "fails]", "serves]")
	}
	deploy := k.background("deploy", "production", "--yes")
	if k.rand.IntN(4) == 0 {
		k.pause(k.whole)
	} else {
		_ = awaitFor(k.t.Context(), patience, func() error { return k.inFlight(k.t.Context()) })
		k.pause(k.rollout * 11 / 10)
	}
	k.kill()
	if k.rand.IntN(4) == 0 { // and the next one too, amid its start
		k.server = k.spawn("server")
		k.pause(60 * time.Millisecond)
		k.kill()
	}
	k.pause(200 * time.Millisecond)
	k.start()
	r := deploy()
	k.outcomes[r.code]++
	if r.code != 0 && r.code != 5 && r.code != 6 {
		k.t.Errorf("round %d: %s", n, r)
	}
	k.settled()
	entries := k.entries(from)
	at := slices.IndexFunc(entries, func(e record.Entry) bool { return e.Kind == "rollout.resumed" })
	if at < 0 {
		k.steps["none"]++
	} else {
		k.resumed(n, entries[at:], said)
	}
	k.ended(n, entries)
}

// pause lets a random part of a time go by: the moment is what is drawn, there is
// nothing to wait for.
func (k *killer) pause(most time.Duration) {
	<-time.After(time.Duration(k.rand.Int64N(int64(most))))
}

// head is the index after the last entry of the record.
func (a *app) head() int64 { return int64(len(a.entries(0))) }

// resumed expects the server, and the record, to say which rollout goes on from
// which step, and how it ended.
func (k *killer) resumed(n int, entries []record.Entry, from int) {
	k.t.Helper()
	_, step, _ := strings.Cut(entries[0].Reason, "was at the step ")
	k.steps[step]++
	at := slices.IndexFunc(entries, func(e record.Entry) bool { return e.Kind == "rollout.live" || e.Kind == "rollout.put-back" })
	if at < 0 || entries[at].Rollout != entries[0].Rollout {
		k.t.Errorf("round %d: rollout %d was resumed at %q and the record does not say how it ended", n, entries[0].Rollout, step)
		return
	}
	number := fmt.Sprintf("rollout=%d ", entries[0].Rollout)
	for _, words := range []string{`msg="rollout resumed"`, "msg=" + entries[at].Kind} {
		// It may say so a moment after it was done.
		k.await(fmt.Sprintf("round %d: the server to say %s of %s", n, words, number), func() error {
			told := slices.ContainsFunc(lines(k.said.from(from)), func(l string) bool { return strings.Contains(l, words) && strings.Contains(l+" ", number) })
			return missing(told, words)
		})
	}
}

// ended expects every rollout that was begun to have ended once.
func (k *killer) ended(n int, entries []record.Entry) {
	k.t.Helper()
	open := map[int]int{}
	for _, e := range entries {
		switch e.Kind {
		case "rollout.begun":
			open[e.Rollout]++
		case "rollout.live", "rollout.put-back":
			open[e.Rollout]--
		}
	}
	for number, left := range open {
		if left != 0 {
			k.t.Errorf("round %d: rollout %d was begun and ended %+d times more", n, number, left)
		}
	}
}

// oneRelease expects every instance to be of the release that is live, as many as
// declared, and every answer to come from it.
func (a *app) oneRelease(mark string) {
	a.t.Helper()
	s := a.settled()
	if len(s.Instances) != 2 {
		a.t.Errorf("%d instances", len(s.Instances))
	}
	for _, in := range s.Instances {
		if in.Release != s.State.Current.Release {
			a.t.Errorf("%s is of release %s, live is %s", in.ID, in.Release, s.State.Current.Release)
		}
	}
	for range 10 {
		if got := a.get("/"); !strings.Contains(got, " mark "+mark+" ") {
			a.t.Errorf("answer %q", got)
		}
	}
}
