package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func (p *program) deployCommand() *cobra.Command {
	var flags buildFlags
	var ask question
	var how begin
	cmd := &cobra.Command{
		Use:   "deploy [ENV]",
		Short: "Build what changed and lay it in an environment",
		Long: "Builds what changed, shows which instances are replaced and why, asks, and rolls the release out:\n" +
			"new instances start beside the old, pass their health check, the traffic moves, the old drain and retire.\n" +
			"Any failure on the way leaves or puts back the previous release, and says why (exit status 5).\n\n" +
			"While another rollout is in flight, the environment's  queue:  says whether this one waits or is refused;\n" +
			"--queue lets it wait, --supersede ends the other: it is put back where it has not moved the traffic yet.\n\n" +
			"Ctrl-C detaches once the rollout has begun: the server carries on.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := how.check(); err != nil {
				return err
			}
			prep, err := p.prepare(cmd.Context(), args, flags, true)
			if err != nil {
				return err
			}
			defer prep.built.Unlock()
			return p.deploy(cmd.Context(), prep, ask, how)
		},
	}
	flags.add(cmd)
	ask.add(cmd)
	how.add(cmd)
	how.addTurn(cmd)
	return cmd
}

// begin is how a rollout is asked for.
type begin struct {
	reason                          string
	queue, supersede, force, detach bool
	breakGlass                      bool
}

func (b *begin) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&b.force, "force", false, "though the environment is frozen, or the data could not be read; with a reason")
	cmd.Flags().BoolVar(&b.breakGlass, "break-glass", false, "in spite of the policy, if enough approvers said so (ashlar approve --break-glass); with a reason")
	cmd.Flags().BoolVar(&b.detach, "detach", false, "do not follow the rollout once it has begun or waits")
}

// addTurn adds the flags that say what becomes of a rollout in flight.
func (b *begin) addTurn(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&b.queue, "queue", false, "wait for the rollout in flight")
	cmd.Flags().BoolVar(&b.supersede, "supersede", false, "end the rollout in flight for this one")
}

// check refuses what contradicts itself.
func (b begin) check() error {
	if b.queue && b.supersede {
		return fault.New(fault.Invalid, "--queue waits for the rollout in flight, and --supersede ends it").Mend("leave one of them out")
	}
	return nil
}

func (b begin) request(plan api.Plan) api.BeginRequest {
	return api.BeginRequest{
		App: plan.App, Env: plan.Env, Release: string(plan.To.Digest), Reason: b.reason, Queue: b.queue, Supersede: b.supersede, Force: b.force,
		BreakGlass: b.breakGlass,
	}
}

func (p *program) deploy(ctx context.Context, prep *prepared, ask question, how begin) error {
	if !p.json() {
		p.showPlan(prep.plan, prep.files)
	}
	if prep.plan.Nothing {
		p.showOutcome(outcome{App: prep.app, Env: prep.env, Outcome: "unchanged", Plan: prep.plan})
		return nil
	}
	if err := p.confirm(ctx, ask, "Deploy to "+prep.env+"?"); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	added, err := c.AddRelease(ctx, prep.doc)
	if err != nil {
		return err
	}
	prep.plan.To = added.ReleaseRef
	signing, err := p.signBefore(ctx, prep)
	if err != nil {
		return err
	}
	begun, err := c.Deploy(ctx, how.request(prep.plan))
	if err != nil {
		return errors.Join(err, signing())
	}
	prep.built.Unlock() // the record keeps the release from here on
	return errors.Join(p.begun(ctx, c, prep.plan, begun, how), signing())
}

// signBefore signs what was built. Where a policy asks for statements that is done before
// the deploy is asked for, else while it goes on: what it gives waits for that.
func (p *program) signBefore(ctx context.Context, prep *prepared) (func() error, error) {
	signing := p.signAside(ctx, prep)
	if prep.plan.Policy == "" {
		return signing, nil
	}
	return func() error { return nil }, signing()
}

// signRelease signs the release document, which has everything that the artifacts have
// not: settings, secrets' versions, which artifacts belong together.
func (p *program) signRelease(ctx context.Context, prep *prepared) error {
	open, ok := prep.ring[trust.RoleRelease]
	if !ok {
		return nil
	}
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	signer, err := open()
	if err != nil {
		return err
	}
	key, err := trust.NewPublicKey(signer.Public())
	if err != nil {
		return fault.New(fault.Invalid, "the key of the role release cannot be used: %w", err).Mend("make one:  ashlar key new NAME")
	}
	have, err := p.parts.Statements.Attached(dir, prep.plan.To.Digest)
	if err != nil || len(notSaid(have, []string{"signature"}, key.ID())) == 0 {
		return err
	}
	_, err = p.sayOf(ctx, "signature", prep.app, prep.plan.To, prep.doc, nil, signer)
	return err
}

// signAside signs what was built while the rollout goes on. What it gives waits for
// that.
func (p *program) signAside(ctx context.Context, prep *prepared) func() error {
	if len(prep.ring) == 0 {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		_, err := p.sign(ctx, prep.app, prep.built, prep.ring)
		if err == nil {
			err = p.signRelease(ctx, prep)
		}
		done <- err
	}()
	return func() error { return <-done }
}

// begun follows a rollout, or leaves it to the server.
func (p *program) begun(ctx context.Context, c *api.Client, plan api.Plan, begun api.Begun, how begin) error {
	if !how.detach {
		return p.see(ctx, c, plan, begun)
	}
	o := outcome{App: plan.App, Env: plan.Env, Outcome: "begun", Kind: begun.Rollout.Kind, Release: &plan.To, Plan: plan}
	words := fmt.Sprintf("rollout %d is in flight", begun.Rollout.Number)
	if begun.Queued > 0 {
		o.Outcome, o.Kind = "queued", ""
		words = fmt.Sprintf("release %d %s", plan.To.Number, queuedWords(begun))
	} else {
		o.Rollout = begun.Rollout.Number
	}
	if p.json() {
		p.out.json(o)
		return nil
	}
	p.out.linef("%s; see it with  ashlar rollout status %s", words, plan.Env)
	return nil
}

// see follows a rollout to its end and tells how it ended.
func (p *program) see(ctx context.Context, c *api.Client, plan api.Plan, begun api.Begun) error {
	out, err := p.follow(ctx, c, plan, begun)
	if err != nil {
		return err
	}
	p.showOutcome(out)
	return out.bad
}

// follow follows a rollout to its end.
func (p *program) follow(ctx context.Context, c *api.Client, plan api.Plan, begun api.Begun) (outcome, error) {
	pr := newProgress(p, begun, plan)
	if err := pr.follow(ctx, c, begun); err != nil {
		return outcome{}, err
	}
	out := outcome{
		App: plan.App, Env: plan.Env, Outcome: pr.outcome, Kind: pr.r.Kind, Plan: plan, Rollout: pr.r.Number,
		Release: &plan.To, Started: pr.started, Retired: pr.retired,
		TotalSeconds: pr.ended.Sub(pr.r.StartedAt).Seconds(),
	}
	status, err := c.Status(ctx, plan.App, plan.Env)
	if err != nil {
		return out, err
	}
	out.URL = status.URL
	if !pr.live.IsZero() {
		out.SwitchSeconds = pr.live.Sub(pr.r.StartedAt).Seconds()
	}
	if last := status.State.LastResult; last != nil && last.Number == out.Rollout {
		out.Failure = last.Failure
	}
	switch pr.outcome {
	case string(rollout.PutBack):
		out.bad = putBack(out, pr.r, pr.why)
	case string(rollout.Superseded), dropped:
		out.bad = fault.New(fault.Conflict, "release %d did not become live: its rollout was %s: %s", plan.To.Number, pr.outcome, pr.why).
			At(plan.App+"/"+plan.Env).Mend("see what is there:  ashlar status %s", plan.Env)
	}
	return out, nil
}

// queuedWords tells what a rollout waits for that has not begun.
func queuedWords(b api.Begun) string {
	if b.Rollout.Number == 0 {
		return fmt.Sprintf("waits for the end of the freeze, at place %d", b.Queued)
	}
	return fmt.Sprintf("waits behind rollout %d, at place %d", b.Rollout.Number, b.Queued)
}

// dropped is the outcome of a rollout that waited and never began.
const dropped = "dropped"

// outcome is how a command that changes an environment ended.
type outcome struct {
	App           string           `json:"app"`
	Env           string           `json:"env"`
	Outcome       string           `json:"outcome"` // live, put-back, superseded, dropped, begun, queued or unchanged
	Kind          string           `json:"kind,omitempty"`
	Release       *api.ReleaseRef  `json:"release,omitempty"`
	Rollout       int              `json:"rollout,omitempty"`
	URL           string           `json:"url,omitempty"`
	SwitchSeconds float64          `json:"switchSeconds,omitempty"` // from the request until the router served the new release
	TotalSeconds  float64          `json:"totalSeconds,omitempty"`  // until nothing of the old was left
	Started       int              `json:"started"`                 // instances
	Retired       int              `json:"retired"`
	Failure       *rollout.Failure `json:"failure,omitempty"`
	Plan          api.Plan         `json:"plan"`

	bad error // what a command that asked for it fails with; nil: it is what was asked for
}

func (p *program) showOutcome(o outcome) {
	switch {
	case p.json():
		p.out.json(o)
	case o.Outcome != string(rollout.Live):
	case o.Kind == rollout.KindDown:
		p.out.linef("%s is down (%s, %s retired)", o.Env, seconds(time.Duration(o.TotalSeconds*1e9)), count(o.Retired, "instance"))
	default:
		where := o.Env
		if o.URL != "" {
			where += " at " + o.URL
		}
		p.out.linef("%s", p.out.paint(green, fmt.Sprintf("release %d is live in %s (%s to switch, %s)",
			o.Release.Number, where, seconds(time.Duration(o.SwitchSeconds*1e9)), o.work())))
	}
}

// work says what happened to instances.
func (o outcome) work() string {
	switch {
	case o.Started == o.Retired:
		return count(o.Started, "instance") + " replaced"
	case o.Retired == 0:
		return count(o.Started, "instance") + " started"
	default:
		return number(o.Started) + " started, " + number(o.Retired) + " retired"
	}
}

// putBack is the fault of a rollout that failed: what the instance did, and what
// serves now.
func putBack(o outcome, r rollout.Rollout, why string) error {
	f := fault.New(fault.Refused, "release %d was put back after %s: %s", r.To.Number, seconds(time.Duration(o.TotalSeconds*1e9)), why).
		At(o.App + "/" + o.Env)
	logs := ""
	if x := o.Failure; x != nil {
		if x.Probe != "" {
			f.Detail("the health check said: " + x.Probe)
		}
		if len(x.Tail) > 0 {
			f.Detail("its last lines of output:")
		}
		for _, l := range x.Tail {
			f.Detail("  | " + l)
		}
		if x.Instance != "" {
			logs = "; all it wrote:  ashlar logs " + o.Env + " --instance " + x.Instance
		}
	}
	if r.From == nil {
		f.Detail("nothing is live in " + o.Env + ": there was no release before")
	} else {
		f.Detail(fmt.Sprintf("release %d serves in %s, as before", r.From.Number, o.Env))
	}
	return &putBackError{f.Mend("mend the release and deploy it again%s", logs)}
}

// putBackError says that a rollout was put back: bad news of a deploy, and what a
// rollback asks for.
type putBackError struct{ fault *fault.Error }

func (e *putBackError) Error() string { return e.fault.Error() }
func (e *putBackError) Unwrap() error { return e.fault }
