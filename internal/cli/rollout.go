package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Look at the rollout in flight, and say how it goes on",
		Long: "One rollout is in flight in an environment at a time. Whoever pauses, approves or aborts it is named\n" +
			"in the record; of two people who say the same at once the second is told so (exit status 4).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.rolloutStatusCommand(), p.rolloutWatchCommand(),
		p.verbCommand(rollout.VerbPause, "Hold it: nothing goes forward until it is resumed; failures still put it back"),
		p.verbCommand(rollout.VerbResume, "Let a paused one go on"),
		p.verbCommand(rollout.VerbApprove, "Agree to what it asks a person for, and let it go on"),
		p.verbCommand(rollout.VerbAbort, "Put it back: the previous release serves again"),
		p.withdrawCommand(),
		p.verbCommand(rollout.VerbRetry, "Begin the last one again, which was put back; with a reason if its release is in quarantine"))
	return cmd
}

func (p *program) rolloutStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [ENV]",
		Short: "Show how far it has come, and what it waits for",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				s, err := c.Status(ctx, app, env)
				if err != nil {
					return err
				}
				if p.json() {
					p.out.json(rolloutView{s.State.Rollout, s.Why, s.State.Queue, s.State.LastResult})
					return nil
				}
				for _, l := range p.rolloutLines(s) {
					p.out.linef("%s", l)
				}
				return nil
			})
		},
	}
}

// rolloutView is a rollout as JSON.
type rolloutView struct {
	Rollout *rollout.Rollout `json:"rollout"` // null: none is in flight
	Why     []rollout.Cause  `json:"why,omitempty"`
	Queue   []rollout.Queued `json:"queue,omitempty"`
	Last    *rollout.Result  `json:"last,omitempty"`
}

func (p *program) rolloutWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ENV]",
		Short: "Follow it to its end; the exit status tells how that was",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				begun, err := c.InFlight(ctx, app, env)
				if err != nil {
					return err
				}
				return p.see(ctx, c, planFor(app, env, begun.Rollout), begun)
			})
		},
	}
}

// planFor is what is known of a rollout that somebody else began.
func planFor(app, env string, r rollout.Rollout) api.Plan {
	plan := api.Plan{App: app, Env: env, To: api.ReleaseRef{Number: r.To.Number, Digest: r.To.Release}}
	if r.From != nil {
		plan.From = &api.ReleaseRef{Number: r.From.Number, Digest: r.From.Release}
	}
	return plan
}

func (p *program) verbCommand(verb, what string) *cobra.Command {
	var reason string
	var watch bool
	cmd := &cobra.Command{
		Use: verb + " [ENV]", Short: what,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				begun, err := c.Control(ctx, api.ControlRequest{App: app, Env: env, Verb: verb, Reason: reason})
				if err != nil {
					return err
				}
				switch {
				case watch:
					return p.see(ctx, c, planFor(app, env, begun.Rollout), begun)
				case p.json():
					p.out.json(begun.Rollout)
				default:
					p.out.linef("%s", said(verb, env, begun.Rollout))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow the rollout to its end")
	return cmd
}

func (p *program) withdrawCommand() *cobra.Command {
	var release, reason string
	cmd := &cobra.Command{
		Use: "withdraw [ENV]", Short: "Take back one that waits for its turn",
		Long: "Takes a rollout out of the queue. The one in flight goes on: that is ended by abort.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				q, err := c.Withdraw(ctx, api.WithdrawRequest{App: app, Env: env, Release: release, Reason: reason})
				if err != nil {
					return err
				}
				if p.json() {
					p.out.json(q)
					return nil
				}
				p.out.linef("the %s of release %d is withdrawn from the queue of %s", q.Kind, q.To.Number, env)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&release, "release", "", "which one, by the number or digest of its release; without it: the only one that waits")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	completes(cmd, "release", p.completeQueue)
	return cmd
}

// said tells what a word did.
func said(verb, env string, r rollout.Rollout) string {
	who := "rollout " + number(r.Number) + " (release " + number(r.To.Number) + ")"
	after := "; see it with  ashlar rollout watch " + env
	switch verb {
	case rollout.VerbPause:
		return who + " is paused; let it go on with  ashlar rollout resume " + env
	case rollout.VerbResume:
		return who + " goes on" + after
	case rollout.VerbApprove:
		return who + " is approved and goes on" + after
	case rollout.VerbAbort:
		return who + " is put back" + after
	default:
		return who + " has begun" + after
	}
}
