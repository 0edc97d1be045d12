package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history [ENV]",
		Short: "List the releases and rollouts of an application",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			app, env := p.app, ""
			if o, ok := p.outline(); ok && app == "" {
				app = o.App
			}
			if len(args) > 0 {
				env = args[0]
			}
			if app == "" {
				if app, env, err = p.place(cmd.Context(), c, args); err != nil {
					return err
				}
			}
			h, err := c.History(cmd.Context(), app, env)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(h)
				return nil
			}
			if len(h.Releases) == 0 {
				p.out.linef("%s has no release yet; the first:  ashlar deploy", app)
				return nil
			}
			rows := [][]string{{"RELEASE", "DIGEST", "MADE", "LIVE IN", "CAN BE PUT BACK IN"}}
			for _, r := range h.Releases {
				back := strings.Join(r.KnownGood, ", ")
				if r.Collected {
					back = "collected: a build brings it back"
				}
				rows = append(rows, []string{number(r.Number), short(r.Digest), when(r.Created), strings.Join(r.LiveIn, ", "), back})
			}
			p.out.table(rows)
			rows = [][]string{{"ROLLOUT", "ENV", "KIND", "RELEASE", "BEGUN", "SWITCH", "OUTCOME", "WHO", "WHY"}}
			for _, r := range h.Rollouts {
				from := r.To
				if r.From != "" {
					from = r.From + " -> " + r.To
				}
				switched := ""
				if !r.Live.IsZero() {
					switched = seconds(r.Live.Sub(r.Begun))
				}
				why := r.Reason
				if r.Outcome == "put-back" {
					why = r.Why
				}
				rows = append(rows, []string{number(r.Number), r.Env, r.Kind, from, when(r.Begun), switched, r.Outcome, r.Actor, why})
			}
			p.out.linef("")
			p.out.table(rows)
			return nil
		},
	}
}
