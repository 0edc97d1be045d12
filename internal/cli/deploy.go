package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) deployCommand() *cobra.Command {
	var flags buildFlags
	var ask question
	var reason string
	cmd := &cobra.Command{
		Use:   "deploy [ENV]",
		Short: "Build what changed and lay it in an environment",
		Long: "Builds what changed, shows which instances are replaced and why, asks, and rolls the release out:\n" +
			"new instances start beside the old, pass their health check, the traffic moves, the old drain and retire.\n" +
			"Any failure on the way leaves or puts back the previous release, and says why (exit status 5).\n\n" +
			"Ctrl-C detaches once the rollout has begun: the server carries on.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			prep, err := p.prepare(cmd.Context(), args, flags, true)
			if err != nil {
				return err
			}
			defer prep.built.Unlock()
			return p.deploy(cmd.Context(), prep, ask, reason)
		},
	}
	flags.add(cmd)
	ask.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func (p *program) deploy(ctx context.Context, prep *prepared, ask question, reason string) error {
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
	begun, err := c.Deploy(ctx, api.BeginRequest{App: prep.app, Env: prep.env, Release: string(added.Digest), Reason: reason})
	if err != nil {
		return err
	}
	prep.built.Unlock() // the record keeps the release from here on
	prep.plan.To = added.ReleaseRef
	return p.see(ctx, c, prep.plan, begun)
}

// see follows a rollout to its end and tells how it ended.
func (p *program) see(ctx context.Context, c *api.Client, plan api.Plan, begun api.Begun) error {
	pr := newProgress(p, begun.Rollout, plan)
	if err := pr.follow(ctx, c, begun); err != nil {
		return err
	}
	out := outcome{
		App: plan.App, Env: plan.Env, Outcome: pr.outcome, Kind: begun.Rollout.Kind, Plan: plan, Rollout: begun.Rollout.Number,
		Release: &plan.To, Started: pr.started, Retired: pr.retired,
		TotalSeconds: pr.ended.Sub(begun.Rollout.StartedAt).Seconds(),
	}
	status, err := c.Status(ctx, plan.App, plan.Env)
	if err != nil {
		return err
	}
	out.URL = status.URL
	if !pr.live.IsZero() {
		out.SwitchSeconds = pr.live.Sub(begun.Rollout.StartedAt).Seconds()
	}
	if last := status.State.LastResult; last != nil && last.Number == out.Rollout {
		out.Failure = last.Failure
	}
	p.showOutcome(out)
	if pr.outcome == string(rollout.PutBack) {
		return putBack(out, begun.Rollout, pr.why)
	}
	return nil
}

// outcome is how a command that changes an environment ended.
type outcome struct {
	App           string           `json:"app"`
	Env           string           `json:"env"`
	Outcome       string           `json:"outcome"` // live, put-back or unchanged
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
	return f.Mend("mend the release and deploy it again%s", logs)
}
