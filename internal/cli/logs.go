package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
)

func (p *program) logsCommand() *cobra.Command {
	var q api.OutputQuery
	cmd := &cobra.Command{
		Use:   "logs [ENV[/COMPONENT]]",
		Short: "Show what instances wrote to their output",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvComponents,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				env, component, _ := strings.Cut(args[0], "/")
				args, q.Component = []string{env}, component
				if env == "" {
					args = nil
				}
			}
			return p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
				q.App, q.Env = app, env
				return p.showOutput(ctx, c, q)
			})
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes, until Ctrl-C")
	cmd.Flags().IntVarP(&q.Tail, "tail", "n", 100, "the last lines there are now; -1: all")
	cmd.Flags().StringVar(&q.Instance, "instance", "", "one instance, which may be gone")
	return cmd
}

func (p *program) showOutput(ctx context.Context, c *api.Client, q api.OutputQuery) error {
	err := c.Output(ctx, q, func(l api.OutputLine) error {
		if p.json() {
			p.out.jsonLine(l)
			return nil
		}
		p.out.linef("%s  %s", p.out.paint(faint, l.Instance), l.Text)
		return nil
	})
	if q.Follow && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
