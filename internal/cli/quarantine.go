package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func (p *program) quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "List the releases that failed, and let one be deployed again",
		Long: "A release that failed in one environment is deployed in none of the application's, until somebody\n" +
			"says why it will work now.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.quarantineListCommand(), p.quarantineLiftCommand())
	return cmd
}

func (p *program) quarantineListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List an application's releases in quarantine, and why they are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.inApplication(cmd, func(ctx context.Context, c *api.Client, app string) error {
				list, err := c.Quarantine(ctx, app)
				switch {
				case err != nil:
					return err
				case p.json():
					p.out.json(list)
				case len(list) == 0:
					p.out.linef("no release of %s is in quarantine", app)
				default:
					p.out.table(quarantineRows(list))
				}
				return nil
			})
		},
	}
}

func quarantineRows(list []api.Quarantined) [][]string {
	rows := [][]string{{"RELEASE", "DIGEST", "FAILED IN", "ROLLOUT", "WHEN", "WHY"}}
	for _, q := range list {
		rows = append(rows, []string{number(q.Number), short(q.Digest), q.Env, number(q.Rollout), when(q.At), q.Why})
	}
	return rows
}

func (p *program) quarantineLiftCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "lift RELEASE", Short: "Let a release (its number or digest) be deployed again", Args: cobra.ExactArgs(1),
		ValidArgsFunction: p.completeQuarantine,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return fault.New(fault.Invalid, "a quarantine is lifted with a reason").Mend(`say why it will work now:  --reason "..."`)
			}
			return p.inApplication(cmd, func(ctx context.Context, c *api.Client, app string) error {
				lifted, err := c.Lift(ctx, api.LiftRequest{App: app, Release: args[0], Reason: reason})
				if err != nil {
					return err
				}
				if p.json() {
					p.out.json(lifted)
					return nil
				}
				p.out.linef("release %d can be deployed again; it had failed in %s", lifted.Number, strings.Join(lifted.Envs, ", "))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why it will work now, for the record")
	return cmd
}
