package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func (p *program) promoteCommand() *cobra.Command {
	var ask question
	var how begin
	cmd := &cobra.Command{
		Use:   "promote FROM TO",
		Short: "Lay the release that is live in one environment in another",
		Long: "The same release, by its digest, goes to the other environment: nothing is built. It is a deploy like any\n" +
			"other there, by that environment's strategy and policy.",
		Args: cobra.ExactArgs(2), ValidArgsFunction: p.completeTwoEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := how.check(); err != nil {
				return err
			}
			return p.promote(cmd.Context(), args[0], args[1], ask, how)
		},
	}
	ask.add(cmd)
	how.add(cmd)
	how.addTurn(cmd)
	return cmd
}

func (p *program) promote(ctx context.Context, from, to string, ask question, how begin) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	app, err := p.applicationOf(ctx, c, from)
	if err != nil {
		return err
	}
	status, err := c.Status(ctx, app, from)
	if err != nil {
		return err
	}
	if status.State.Current == nil {
		return fault.New(fault.NotFound, "nothing is live in %s", from).At(app+"/"+from).Mend("deploy to it:  ashlar deploy %s", from)
	}
	plan, err := c.Plan(ctx, api.PlanRequest{App: app, Env: to, Release: string(status.State.Current.Release)})
	if err != nil {
		return err
	}
	if !p.json() {
		p.showPlan(plan, nil)
	}
	if plan.Nothing {
		p.showOutcome(outcome{App: app, Env: to, Outcome: "unchanged", Plan: plan})
		return nil
	}
	if err := p.confirm(ctx, ask, fmt.Sprintf("Promote release %d from %s to %s?", plan.To.Number, from, to)); err != nil {
		return err
	}
	begun, err := c.Deploy(ctx, how.request(plan))
	if err != nil {
		return err
	}
	return p.begun(ctx, c, plan, begun, how)
}
