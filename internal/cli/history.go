package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history [ENV]",
		Short: "List the releases and rollouts of an application",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return p.inPlace(cmd, args, p.history)
			}
			return p.inApplication(cmd, func(ctx context.Context, c *api.Client, app string) error { return p.history(ctx, c, app, "") })
		},
	}
}

// history shows what happened to an application; env may be empty.
func (p *program) history(ctx context.Context, c *api.Client, app, env string) error {
	h, err := c.History(ctx, app, env)
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
	p.out.table(releaseRows(h.Releases))
	p.out.linef("")
	p.out.table(rolloutRows(h.Rollouts))
	return nil
}

func releaseRows(list []api.HistoryRelease) [][]string {
	rows := [][]string{{"RELEASE", "DIGEST", "MADE", "LIVE IN", "CAN BE PUT BACK IN"}}
	for _, r := range list {
		back := strings.Join(r.KnownGood, ", ")
		if r.Collected {
			back = "collected: a build brings it back"
		}
		rows = append(rows, []string{number(r.Number), short(r.Digest), when(r.Created), strings.Join(r.LiveIn, ", "), back})
	}
	return rows
}

func rolloutRows(list []api.HistoryRollout) [][]string {
	rows := [][]string{{"ROLLOUT", "ENV", "KIND", "RELEASE", "BEGUN", "SWITCH", "OUTCOME", "WHO", "WHY"}}
	for _, r := range list {
		from := r.To
		if r.From != "" {
			from = r.From + " -> " + r.To
		}
		switched := ""
		if !r.Live.IsZero() {
			switched = seconds(r.Live.Sub(r.Begun))
		}
		why := r.Reason
		if r.Outcome == string(rollout.PutBack) {
			why = r.Why
		}
		rows = append(rows, []string{number(r.Number), r.Env, r.Kind, from, when(r.Begun), switched, r.Outcome, r.Actor, why})
	}
	return rows
}
