package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) rollbackCommand() *cobra.Command {
	var ask question
	var how begin
	cmd := &cobra.Command{
		Use:   "rollback [ENV [RELEASE]]",
		Short: "Lay a previous release again, by itself the last proven one",
		Long: "Rolls the environment out to a release that was live before, from what is on hand: no build, no\n" +
			"network. Without RELEASE (its number or digest) the last proven one before the current: it served and\n" +
			"baked. Where its instances are kept warm that is only a switch. A deploy in flight that came from that\n" +
			"release is put back instead; any other one is superseded. A rollback to a proven release is never put\n" +
			"back by itself.",
		Args: cobra.MaximumNArgs(2), ValidArgsFunction: p.completeRollback,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := ""
			if len(args) > 1 {
				ref = args[1]
			}
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				return p.rollback(ctx, c, app, env, ref, ask, how)
			})
		},
	}
	ask.add(cmd)
	how.add(cmd)
	return cmd
}

func (p *program) rollback(ctx context.Context, c *api.Client, app, env, ref string, ask question, how begin) error {
	status, err := c.Status(ctx, app, env)
	if err != nil {
		return err
	}
	if ref == "" {
		if ref = backTo(status.State); ref == "" {
			return fault.New(fault.NotFound, "%s/%s has no proven release before the current one", app, env).
				Mend("name a release:  ashlar rollback %s RELEASE ; ashlar history lists them", env)
		}
	}
	plan, err := c.Plan(ctx, api.PlanRequest{App: app, Env: env, Release: ref})
	if err != nil {
		return err
	}
	plan.Rollout, plan.Hooks = release.Rollout{Strategy: rollout.BlueGreen}, nil // all at once, and no hook of the old
	if !p.json() {
		p.showPlan(plan, nil)
		if w := status.State.Warm; w != nil && w.Target.Release == plan.To.Digest {
			p.out.linef("its instances are warm: that is only a switch")
		}
	}
	if plan.Nothing && status.State.Rollout == nil && plan.From != nil && plan.From.Digest == plan.To.Digest {
		p.showOutcome(outcome{App: app, Env: env, Outcome: "unchanged", Plan: plan})
		return nil
	}
	if err := p.confirm(ctx, ask, fmt.Sprintf("Put release %d back in %s?", plan.To.Number, env)); err != nil {
		return err
	}
	begun, err := c.Rollback(ctx, how.request(plan))
	if err != nil {
		return err
	}
	if begun.Queued > 0 || begun.Rollout.Kind != rollout.KindDeploy {
		return p.begun(ctx, c, plan, begun, how)
	}
	// The deploy in flight is put back, which is what was asked for.
	deploy := planFor(app, env, begun.Rollout)
	err = p.begun(ctx, c, deploy, begun, how)
	if f := (*putBackError)(nil); errors.As(err, &f) {
		if !p.json() {
			p.out.linef("rollout %d was put back: release %d serves in %s", begun.Rollout.Number, plan.To.Number, env)
		}
		return nil
	}
	return err
}

// backTo is the release that a rollback leads to: while a deploy is in flight the
// one it came from.
func backTo(s rollout.State) string {
	if r := s.Rollout; r != nil && r.Kind == rollout.KindDeploy && r.From != nil && r.Step != rollout.Retiring && r.Step != rollout.Reverting {
		return string(r.From.Release)
	}
	return string(s.RollbackTo())
}
