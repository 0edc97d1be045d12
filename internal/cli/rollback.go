package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func (p *program) rollbackCommand() *cobra.Command {
	var ask question
	var reason string
	cmd := &cobra.Command{
		Use:   "rollback [ENV [RELEASE]]",
		Short: "Lay a previous known-good release again",
		Long: "Rolls the environment out to a release that was live before, from what is on hand: no build, no\n" +
			"network. Without RELEASE (its number or digest) the last known-good one before the current.",
		Args: cobra.MaximumNArgs(2), ValidArgsFunction: p.completeReleases,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			app, env, err := p.place(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			ref := ""
			if len(args) > 1 {
				ref = args[1]
			}
			return p.rollback(cmd.Context(), c, app, env, ref, ask, reason)
		},
	}
	ask.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func (p *program) rollback(ctx context.Context, c *api.Client, app, env, ref string, ask question, reason string) error {
	if ref == "" {
		status, err := c.Status(ctx, app, env)
		if err != nil {
			return err
		}
		if ref = string(status.State.RollbackTo()); ref == "" {
			return fault.New(fault.NotFound, "%s/%s has no known-good release before the current one", app, env).
				Mend("name a release:  ashlar rollback %s RELEASE ; ashlar history lists them", env)
		}
	}
	plan, err := c.Plan(ctx, api.PlanRequest{App: app, Env: env, Release: ref})
	if err != nil {
		return err
	}
	if !p.json() {
		p.showPlan(plan, nil)
	}
	if plan.Nothing && plan.From != nil && plan.From.Digest == plan.To.Digest {
		p.showOutcome(outcome{App: app, Env: env, Outcome: "unchanged", Plan: plan})
		return nil
	}
	if err := p.confirm(ctx, ask, fmt.Sprintf("Put release %d back in %s?", plan.To.Number, env)); err != nil {
		return err
	}
	begun, err := c.Rollback(ctx, api.BeginRequest{App: app, Env: env, Release: string(plan.To.Digest), Reason: reason})
	if err != nil {
		return err
	}
	return p.see(ctx, c, plan, begun)
}
