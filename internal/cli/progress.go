package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// progress follows one rollout by its entries in the record: what it shows is
// what is recorded, nothing else.
type progress struct {
	p     *program
	r     rollout.Rollout
	plan  api.Plan
	index int64 // of the next entry to read

	mu               sync.Mutex
	units            []*unit // in the order in which they are first met
	step             string
	live, ended      time.Time
	outcome, why     string
	started, retired int
	gone             time.Time // since when the server does not answer
	trouble          string    // why the rollout does not go on, when the record cannot say
	queued           bool      // it has not begun: it waits for r
	causes           []rollout.Cause
	told             map[string]time.Time // causes, and when they were said last
}

// unit is one instance as it is shown.
type unit struct {
	component, id, phase string
	fresh                bool // of the new release
}

// detachedError says that a person stopped looking while the rollout went on.
type detachedError struct{}

func (*detachedError) Error() string { return "detached" }

// errEnded ends the stream of entries.
var errEnded = errors.New("the rollout has ended")

// How long a server may be away while somebody watches.
const (
	lookForServer = 200 * time.Millisecond
	serverAway    = 2 * time.Minute
	// lookForTrouble is how often the server is asked what keeps it from going on.
	lookForTrouble = 2 * time.Second
	// worthTelling is how long something has to be waited for before that is said.
	worthTelling = time.Second
	// tellAgain is how often it is said anew, as its figures change.
	tellAgain = 30 * time.Second
)

func newProgress(p *program, begun api.Begun, plan api.Plan) *progress {
	pr := &progress{p: p, r: begun.Rollout, plan: plan, step: string(begun.Rollout.Step), queued: begun.Queued > 0, told: map[string]time.Time{}}
	if pr.queued {
		pr.step = queuedWords(begun)
		pr.say("release %d %s", plan.To.Number, pr.step)
	}
	for _, in := range plan.Instances {
		pr.units = append(pr.units, &unit{component: in.Component, id: in.ID, phase: "serves"})
	}
	return pr
}

// follow reads entries until the rollout has ended. A server that goes away is
// waited for: the rollout goes on when it is back.
func (pr *progress) follow(ctx context.Context, c *api.Client, begun api.Begun) error {
	pr.index = begun.Index
	stop := pr.animate(ctx)
	defer stop()
	defer pr.watch(ctx, c)()
	for {
		err := c.Entries(ctx, api.EntriesQuery{App: pr.plan.App, Env: pr.plan.Env, From: pr.index, To: -1, Follow: true}, pr.entry)
		switch {
		case errors.Is(err, errEnded):
			return nil
		case ctx.Err() != nil:
			stop()
			pr.p.err.linef("detached: rollout %d goes on; see it with  ashlar rollout watch %s", pr.r.Number, pr.plan.Env)
			return &detachedError{}
		case err != nil && fault.Of(err).Kind != fault.Unavailable:
			return err
		}
		if err := pr.awaitServer(ctx, err); err != nil {
			return err
		}
	}
}

func (pr *progress) awaitServer(ctx context.Context, err error) error {
	now := time.Now()
	pr.mu.Lock()
	if pr.gone.IsZero() {
		pr.gone = now
		pr.say("the server went away; the instances and the traffic go on; waiting for it to come back")
	}
	away := now.Sub(pr.gone)
	pr.mu.Unlock()
	if away > serverAway && err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(lookForServer):
	}
	return nil
}

// entry takes in one entry.
func (pr *progress) entry(e record.Entry) error {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.index = e.Index + 1
	pr.gone = time.Time{}
	if pr.queued {
		pr.takeQueued(e)
	}
	if pr.outcome == "" && (pr.queued || e.Rollout != pr.r.Number) {
		return nil
	}
	words := pr.take(e)
	if words != "" {
		pr.say("%9s  %s", seconds(max(0, e.Time.Sub(pr.r.StartedAt))), words)
	}
	pr.draw()
	if pr.outcome != "" {
		return errEnded
	}
	return nil
}

// say shows a line where lines are shown.
func (pr *progress) say(format string, args ...any) {
	if !pr.p.json() && !pr.p.out.terminal {
		pr.p.out.linef(format, args...)
	}
}

// take updates the picture and gives the entry in words; empty: not worth a line.
func (pr *progress) take(e record.Entry) string {
	what, isInstance := strings.CutPrefix(e.Kind, "instance.")
	if isInstance {
		return pr.takeInstance(what, e)
	}
	if what, isHook := strings.CutPrefix(e.Kind, "hook."); isHook {
		return pr.takeHook(what, e)
	}
	switch e.Kind {
	case "rollout.begun":
		return fmt.Sprintf("rollout %d: %s", pr.r.Number, e.Reason)
	case "rollout.switching":
		pr.step = "switching"
		if pr.r.Kind == rollout.KindDown {
			return "the address closes"
		}
		return e.Reason + ": the traffic moves"
	case "release.live":
		pr.live = e.Time
		if pr.r.Kind == rollout.KindDown {
			return ""
		}
		for _, u := range pr.units {
			if u.fresh && u.phase == "ready" {
				u.phase = "serves"
			}
		}
		return "live: " + e.Reason
	case "release.quarantined":
		return fmt.Sprintf("release %d is in quarantine", pr.r.To.Number)
	case "warm.kept":
		return "the old instances are kept warm: " + e.Reason
	case "rollout.live", "rollout.put-back", "rollout.superseded":
		pr.outcome, pr.ended, pr.why = strings.TrimPrefix(e.Kind, "rollout."), e.Time, strings.TrimPrefix(e.Reason, "put back: ")
		return ""
	case "rollout.reverting":
		pr.step = "reverting"
		return "putting back: " + e.Reason
	}
	if what, ok := strings.CutPrefix(e.Kind, "rollout."); ok {
		return pr.takeStep(what, e)
	}
	return ""
}

// takeQueued looks for the beginning of the rollout that waits, or for its end
// without one.
func (pr *progress) takeQueued(e record.Entry) {
	switch {
	case e.Release != pr.plan.To.Digest:
	case e.Kind == "rollout.begun":
		pr.queued = false
		pr.r = rollout.Rollout{Number: e.Rollout, Kind: e.Data["kind"], StartedAt: e.Time, To: rollout.Target{Number: pr.plan.To.Number, Release: e.Release}}
		if n, err := strconv.Atoi(e.Data["from"]); err == nil {
			pr.r.From = &rollout.Target{Number: n}
		}
	case e.Kind == "rollout.dropped" || e.Kind == "rollout.withdrawn":
		pr.outcome, pr.why, pr.ended, pr.r.StartedAt = dropped, e.Reason, e.Time, e.Time
	}
}

// takeStep gives what happens to the rollout as a whole in words.
func (pr *progress) takeStep(what string, e record.Entry) string {
	because := ""
	if e.Reason != "" {
		because = ": " + e.Reason
	}
	switch what {
	case "paused", "approved":
		return what + " by " + e.Data["by"] + because
	case "unpaused":
		return "resumed by " + e.Data["by"] + because
	case "resumed", "stage", "late", dropped, "queued":
		return e.Reason
	case "hurried":
		return "the bake is cut short" + because
	case "wave":
		return e.Data["components"] + ": " + e.Reason
	case "rolled":
		return fmt.Sprintf("%s  rolls, %s new and %s old instances wanted", e.Data["component"], e.Data["new"], e.Data["old"])
	}
	pr.step = what
	return what + because
}

func (pr *progress) takeHook(what string, e record.Entry) string {
	u := pr.unit(e)
	u.fresh = true
	line := fmt.Sprintf("%s  %s  hook %s  %s", u.component, u.id, e.Data["when"], what)
	if what == "ordered" {
		u.phase = "hook " + e.Data["when"] + " runs"
		return line
	}
	u.phase = "hook " + e.Data["when"] + ": " + e.Reason
	return line + ": " + e.Reason
}

func (pr *progress) takeInstance(what string, e record.Entry) string {
	u := pr.unit(e)
	switch what {
	case "ordered":
		u.phase, u.fresh = "starts", true
		pr.started++
	case "started":
		u.phase = "runs"
	case "ready", "recovered":
		u.phase = "ready"
	case "unready":
		u.phase = "not ready"
	case "failed":
		u.phase = "failed"
	case "leaving":
		if u.phase != "failed" {
			u.phase = "leaves"
		}
		if !u.fresh {
			pr.retired++
		}
	case "stopping":
		u.phase = "stops"
	case "cut":
		return fmt.Sprintf("%s  %s  cut, as its drain time is over: %s", u.component, u.id, cutWords(e.Data))
	case "removed":
		u.phase = "gone"
	default:
		return ""
	}
	line := fmt.Sprintf("%s  %s  %s", u.component, u.id, what)
	if e.Reason != "" && (what == "failed" || what == "unready") {
		line += ": " + e.Reason
	}
	return line
}

// cutWords tells what was cut, by kind.
func cutWords(data map[string]string) string {
	n := func(kind string) int { n, _ := strconv.Atoi(data[kind]); return n } // what is no number was not counted
	return flightWords(rollout.Flight{Requests: n("requests"), WebSockets: n("websockets"), Streams: n("streams"), GRPC: n("grpc"), TCP: n("tcp")})
}

func (pr *progress) unit(e record.Entry) *unit {
	for _, u := range pr.units {
		if u.id == e.Instance {
			return u
		}
	}
	u := &unit{id: e.Instance, component: componentOf(e)}
	pr.units = append(pr.units, u)
	return u
}

// componentOf takes the component out of an instance's ID: app-env-component-N.
func componentOf(e record.Entry) string {
	name := strings.TrimPrefix(e.Instance, e.App+"-"+e.Env+"-")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		return name[:i]
	}
	return name
}

// animate redraws on a terminal until stop, so that the clock moves.
func (pr *progress) animate(ctx context.Context) (stop func()) {
	if pr.p.json() || !pr.p.out.terminal {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				pr.mu.Lock()
				pr.draw()
				pr.mu.Unlock()
			}
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-done
		pr.p.out.settle()
	})
}

// watch asks, until stop, what is waited for and what keeps the server from going
// on: when it cannot write the record, as on a full disk, no entry tells.
func (pr *progress) watch(ctx context.Context, c *api.Client) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, lookForTrouble); ctx.Err() == nil; pause(ctx, lookForTrouble) {
			if s, err := c.Status(ctx, pr.plan.App, pr.plan.Env); err == nil {
				pr.heed(s)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// heed shows a trouble when it is another one than before, and what is waited for
// once that takes a while.
func (pr *progress) heed(s api.Status) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	trouble := strings.Join(s.Problems, "\n")
	if trouble != "" && trouble != pr.trouble {
		pr.say("problem: %s", trouble)
	}
	pr.trouble, pr.causes = trouble, nil
	for _, c := range s.Why {
		if s.Now.Sub(c.Since) < worthTelling {
			continue
		}
		pr.causes = append(pr.causes, c)
		if key := c.Since.String() + c.Command; !c.Since.IsZero() && s.Now.Sub(pr.told[key]) >= tellAgain {
			pr.told[key] = s.Now
			pr.say("%9s  waits for %s", seconds(max(0, s.Now.Sub(pr.r.StartedAt))), causeWords(c, s.Now))
		}
	}
	pr.draw()
}

// draw shows the table on a terminal.
func (pr *progress) draw() {
	out := pr.p.out
	if pr.p.json() || !out.terminal {
		return
	}
	at := time.Now()
	if !pr.ended.IsZero() {
		at = pr.ended
	}
	head := fmt.Sprintf("rollout %d in %s  %s  %s", pr.r.Number, pr.plan.Env, seconds(max(0, at.Sub(pr.r.StartedAt))), pr.step)
	if !pr.gone.IsZero() {
		head += "  (the server is away)"
	}
	wide := 0
	for _, u := range pr.units {
		wide = max(wide, len(u.id))
	}
	lines := []string{head}
	for _, u := range pr.units {
		age := "old"
		if u.fresh {
			age = "new"
		}
		lines = append(lines, fmt.Sprintf("  %s  %-*s  %s", age, wide, u.id, u.phase))
	}
	for _, c := range pr.causes {
		lines = append(lines, "  waits for "+causeWords(c, time.Now()))
	}
	if pr.trouble != "" {
		lines = append(lines, strings.Split("problem: "+pr.trouble, "\n")...)
	}
	out.redraw(lines)
}
