package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [ENV]",
		Short: "Show what runs: of one environment, or of all",
		Long: "Shows the release that is live in an environment, its instances, and the rollout in flight. Without\n" +
			"ENV, the environments of ashlar.yaml's application, or outside of one, all that the server has.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			show := func(ctx context.Context) (any, []string, error) { return p.statusOfAll(ctx, c) }
			if len(args) > 0 {
				app, env, err := p.place(cmd.Context(), c, args)
				if err != nil {
					return err
				}
				show = func(ctx context.Context) (any, []string, error) { return p.statusOfOne(ctx, c, app, env) }
			}
			return p.showStatus(cmd.Context(), show, watch)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it until Ctrl-C")
	return cmd
}

// watchEvery is how often a watched status is looked at.
const watchEvery = 250 * time.Millisecond

func (p *program) showStatus(ctx context.Context, show func(context.Context) (any, []string, error), watch bool) error {
	last := ""
	for {
		doc, lines, err := show(ctx)
		text := strings.Join(lines, "\n")
		switch {
		case err != nil && watch && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case p.json() && watch:
			p.out.jsonLine(doc)
		case p.json():
			p.out.json(doc)
		case watch && p.out.terminal:
			p.out.redraw(lines)
		case text != last:
			p.out.linef("%s", text)
		}
		last = text
		if !watch {
			return nil
		}
		if pause(ctx, watchEvery); ctx.Err() != nil {
			return nil
		}
	}
}

func (p *program) statusOfAll(ctx context.Context, c *api.Client) (any, []string, error) {
	list, err := c.Environments(ctx)
	if err != nil {
		return nil, nil, err
	}
	app := p.app
	if o, ok := p.outline(); ok && app == "" {
		app = o.App
	}
	if app != "" {
		list = slices.DeleteFunc(list, func(e api.Environment) bool { return e.App != app })
	}
	if len(list) == 0 {
		return list, []string{"nothing was deployed yet; the first:  ashlar deploy"}, nil
	}
	rows := [][]string{{"APP", "ENV", "RELEASE", "INSTANCES", "ADDRESS", "ROLLOUT"}}
	for _, e := range list {
		rel := "none"
		if e.Current != nil {
			rel = number(e.Current.Number)
		}
		rows = append(rows, []string{e.App, e.Env, rel, number(e.Running), e.URL, rolloutWords(e.Rollout, e.Last)})
	}
	return list, tableLines(rows), nil
}

func rolloutWords(r *rollout.Rollout, last *rollout.Result) string {
	switch {
	case r != nil:
		return fmt.Sprintf("%d (%s of release %d) in flight: %s", r.Number, r.Kind, r.To.Number, r.Step)
	case last != nil && last.Outcome == rollout.PutBack:
		return fmt.Sprintf("%d (%s) was put back", last.Number, last.Kind)
	case last != nil:
		return fmt.Sprintf("%d (%s) done", last.Number, last.Kind)
	}
	return ""
}

func (p *program) statusOfOne(ctx context.Context, c *api.Client, app, env string) (any, []string, error) {
	s, err := c.Status(ctx, app, env)
	if err != nil {
		return nil, nil, err
	}
	return s, p.statusLines(s), nil
}

func (p *program) statusLines(s api.Status) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch c := s.State.Current; {
	case c == nil:
		add("%s/%s: nothing is live", s.State.App, s.State.Env)
	case len(c.Components) == 0:
		add("%s/%s: down; release %d was live", s.State.App, s.State.Env, c.Number)
	default:
		add("%s/%s: %s (%s) is live%s", s.State.App, s.State.Env, p.out.paint(bold, "release "+number(c.Number)), short(c.Release), at(s.URL))
	}
	if r := s.State.Rollout; r != nil {
		add("rollout %d (%s of release %d, by %s): %s for %s", r.Number, r.Kind, r.To.Number, r.Actor, p.out.paint(yellow, string(r.Step)), age(s.Now.Sub(r.StepAt)))
	}
	for _, w := range s.Waiting {
		add("  waits for %s", w)
	}
	for _, w := range s.Problems {
		add("%s", p.out.paint(red, "problem: "+w))
	}
	if len(s.State.Instances) > 0 {
		lines = append(lines, tableLines(p.instanceRows(s))...)
	}
	if l := s.State.LastResult; l != nil {
		words := fmt.Sprintf("last rollout: %d (%s), %s %s ago", l.Number, l.Kind, l.Outcome, age(s.Now.Sub(l.EndedAt)))
		if l.Failure != nil {
			words += ": " + strings.TrimSpace(l.Failure.Instance+" "+l.Failure.What)
		} else if !l.SwitchAt.IsZero() {
			words += ", " + seconds(l.SwitchAt.Sub(l.StartedAt)) + " to switch"
		}
		add("%s", words)
	}
	return lines
}

func at(url string) string {
	if url == "" {
		return ""
	}
	return " at " + url
}

func (p *program) instanceRows(s api.Status) [][]string {
	seen := map[string]rollout.Observed{}
	for _, in := range s.Instances {
		seen[in.ID] = in
	}
	rows := [][]string{{"COMPONENT", "INSTANCE", "RELEASE", "PHASE", "AGE", "REQUESTS"}}
	for _, o := range s.State.Instances {
		in, there := seen[o.ID]
		phase, old := string(in.Phase), ""
		if !there {
			phase = "ordered"
		} else {
			old = age(s.Now.Sub(in.StartedAt))
		}
		if o.Leaving {
			phase += ", leaves: " + o.Why
		} else if in.Probe != "" && in.Phase != rollout.Ready {
			phase += ": " + in.Probe
		}
		rel := short(o.Release)
		if n := s.Releases[o.Release]; n > 0 {
			rel = number(n)
		}
		rows = append(rows, []string{o.Component, o.ID, rel, phase, old, number(s.Router.InFlight[o.ID])})
	}
	return rows
}

// tableLines lays rows out in columns.
func tableLines(rows [][]string) []string {
	var b strings.Builder
	(&printer{w: &b}).table(rows)
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}
