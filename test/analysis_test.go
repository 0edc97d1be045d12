package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// judgedYAML has a new release judged at half of the traffic. Its pause is longer than
// the test has patience: what is put back within it was put back for what it did.
const judgedYAML = `    replicas: 2
    strategy: {canary: {steps: [{weight: 50, pause: 10m}, 100]}}
    analysis: {requests: 200, errors: "1%", slower: 3, window: WINDOW}
`

// judged makes an application whose releases are judged by their answers.
func (h *host) judged() *app {
	h.t.Helper()
	a := h.guest()
	a.edit("ashlar.yaml", "    replicas: 2\n", strings.Replace(judgedYAML, "WINDOW", "10m", 1))
	a.deploy()
	return a
}

// TestAnalysis: a release that is healthy and bad is put back by what its requests met,
// without a person and long before all of the traffic would have been with it.
func TestAnalysis(t *testing.T) {
	a := newHost(t).judged()
	for _, tt := range []struct {
		name, env string
		words     []string
	}{
		{"5 % errors", `ERROR_PERCENT: "5"`, []string{"the analysis failed: web: ", " requests failed (", "the limit is 1 %"}},
		{"slow", `DELAY_MS: "150"`, []string{"the analysis failed: web: ", "p95 of ", "the limit is 3 times"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := a.within(t)
			run, spoilt := a.spoilt()
			a.awaitMarker(run, "0")
			mark := fmt.Sprintf(`MARK: "%s", %s`, tt.name, tt.env)
			a.edit("ashlar.yaml", `MARK: "0"`, mark)
			a.ashlar("deploy", "production", "--yes").failed(5, append(tt.words, "was put back", "release 1 serves in production, as before")...)
			a.edit("ashlar.yaml", mark, `MARK: "0"`)
			s := a.settled()
			last := s.State.LastResult
			if last.Outcome != rollout.PutBack || s.State.Current.Number != 1 || len(s.State.Quarantine) == 0 {
				t.Errorf("the last rollout was %+v, current is release %d, in quarantine: %v", last, s.State.Current.Number, s.State.Quarantine)
			}
			from := run.Report().Markers["0"].Count
			a.awaitMarker(run, "0")
			r := a.unharmed(run)
			bad := r.Markers[tt.name].Count
			t.Logf("put back after %s: %d requests met the new release, %d of them an error; %d the old one", last.EndedAt.Sub(last.StartedAt).Round(time.Millisecond), bad, spoilt.Load(), from)
			if bad < 50 || bad > r.Requests*6/10 {
				t.Errorf("%d of %d requests met the new release, whose share was half", bad, r.Requests)
			}
			if errs := spoilt.Load(); strings.Contains(tt.env, "ERROR") != (errs > 0) {
				t.Errorf("%d errors", errs)
			}
			if r.Markers["0"].LastBegan.Before(r.Markers[tt.name].LastBegan) {
				t.Error("the new release answered last")
			}
		})
	}
	a.ashlar("log", "verify").ok()
}

// spoilt begins a load that takes the errors which the program makes up for answers,
// and counts them.
func (a *app) spoilt() (*load.Run, *atomic.Int64) {
	a.t.Helper()
	errs := new(atomic.Int64)
	return a.begin(load.Config{
		URL: "http://" + a.address + "/", KeepAlive: 12, NewConn: 4, HTTP2: 4, Rate: 200, MarkerHeader: "Mark",
		Check: func(status int, body []byte) error {
			switch {
			case status == http.StatusInternalServerError && string(body) == "spoilt\n":
				errs.Add(1)
			case status != http.StatusOK:
				return fmt.Errorf("status %d: %s", status, body)
			}
			return nil
		},
	}), errs
}

// TestTooLittleTraffic: silence is not success. A canary that nobody asks waits and says
// so, until a person ends it or its time is over; neither is held against the release.
func TestTooLittleTraffic(t *testing.T) {
	a := newHost(t).judged()
	a.edit("ashlar.yaml", "pause: 10m", "pause: 100ms")
	a.release("0", "1").ok()
	evidence := "enough evidence: web: no request has reached the new release, 200 are needed"
	a.waitsFor(2, evidence)
	for range 6 {
		a.get("/")
	}
	some := "enough evidence: web: 3 of the 200 requests that are needed have reached the new release, 0 of them failed"
	a.waitsFor(2, some)
	a.ashlar("why").ok().says("waits for "+some, "ends by: more requests to release 2", "command: ashlar rollout abort production")
	a.ashlar("rollout", "status").ok().says("step:   shifting", "the new release has 50 % of the traffic", "waits for "+some)
	a.ashlar("status", "production").ok().says("waits for " + some)
	a.ashlar("rollout", "abort", "--watch", "--reason", "nobody is awake").failed(5, "was put back", "aborted by ", "nobody is awake", "release 1 serves in production, as before")
	a.oneRelease("0")
	a.ashlar("quarantine", "ls").ok().says("no release of demo is in quarantine")

	a.edit("ashlar.yaml", "window: 10m", "window: 1s")
	a.ashlar("deploy", "production", "--yes").failed(5, "was put back", "not enough evidence: web: no request has reached the new release")
	a.oneRelease("0")
	a.ashlar("quarantine", "ls").ok().says("no release of demo is in quarantine")
	a.ashlar("log", "verify").ok()
}

// waitsFor waits until a rollout says that it waits for something.
func (a *app) waitsFor(number int, what string) {
	a.t.Helper()
	a.await(fmt.Sprintf("rollout %d to wait for %s", number, what), func() error {
		s := a.status()
		for _, w := range s.Waiting {
			if s.State.Rollout != nil && s.State.Rollout.Number == number && strings.HasPrefix(w, what) {
				return nil
			}
		}
		return fmt.Errorf("waits for %q", s.Waiting)
	})
}
