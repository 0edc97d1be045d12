package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/record"
)

func (p *program) logCommand() *cobra.Command {
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use:   "log [ENV]",
		Short: "Show the record: everything that ever happened, who did it, and why",
		Long: "Shows the entries of the append-only record: of one environment, or all. `ashlar log verify`\n" +
			"recomputes the Merkle tree over them.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			q := api.EntriesQuery{To: -1}
			if len(args) > 0 {
				if q.App, q.Env, err = p.place(cmd.Context(), c, args); err != nil {
					return err
				}
			}
			return p.showLog(cmd.Context(), c, q, last, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with entries as they are appended, until Ctrl-C")
	cmd.Flags().IntVarP(&last, "last", "n", -1, "the last entries only; -1: all")
	cmd.AddCommand(p.logVerifyCommand(), p.logProveCommand(), p.logConsistencyCommand(), p.logCheckCommand(), p.logKeyCommand(), p.logRenewCommand())
	return cmd
}

func (p *program) showLog(ctx context.Context, c *api.Client, q api.EntriesQuery, last int, follow bool) error {
	var held []record.Entry // until it is known which are the last
	err := c.Entries(ctx, q, func(e record.Entry) error {
		q.From = e.Index + 1
		if last < 0 {
			p.showEntry(e)
			return nil
		}
		if held = append(held, e); len(held) > last {
			held = held[1:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range held {
		p.showEntry(e)
	}
	if !follow {
		return nil
	}
	q.Follow = true
	err = c.Entries(ctx, q, func(e record.Entry) error { p.showEntry(e); return nil })
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (p *program) showEntry(e record.Entry) {
	if p.json() {
		p.out.jsonLine(e)
		return
	}
	about := e.App
	if e.Env != "" {
		about += "/" + e.Env
	}
	parts := []string{about}
	if e.Instance != "" {
		parts = append(parts, e.Instance)
	}
	if e.Release != "" {
		parts = append(parts, short(e.Release))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	p.out.linef("%5d  %s  %-20s %-18s %s", e.Index, e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Actor, e.Kind, strings.Join(parts, "  "))
}
