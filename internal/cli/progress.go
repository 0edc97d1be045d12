package cli

import (
	"context"
	"errors"
	"fmt"
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
	pause(ctx, lookForServer)
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
