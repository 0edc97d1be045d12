package cli

import (
	"context"
	"fmt"
	"maps"
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
	lines := p.standing(s)
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if r := s.State.Rollout; r != nil {
		add("rollout %d (%s of release %d, by %s): %s for %s", r.Number, r.Kind, r.To.Number, r.Actor, p.out.paint(yellow, string(r.Step)), age(s.Now.Sub(r.StepAt)))
	}
	for _, c := range s.Why {
		add("  waits for %s", causeWords(c, s.Now))
	}
	lines = append(lines, queueLines(s)...)
	for _, w := range s.Problems {
		add("%s", p.out.paint(red, "problem: "+w))
	}
	if len(s.State.Instances) > 0 {
		lines = append(lines, tableLines(p.instanceRows(s))...)
	}
	lines = append(lines, flightLines(s)...)
	if w := s.State.Warm; w != nil {
		add("warm: release %d until %s%s; a rollback to it is only a switch", w.Target.Number, w.Till.Local().Format(time.TimeOnly), left(w.Till.Sub(s.Now)))
	}
	for _, name := range slices.Sorted(maps.Keys(s.State.Jobs)) {
		add("job %s: %s", name, jobWords(s.State.Jobs[name], s.Now))
	}
	if l := s.State.LastResult; l != nil {
		add("%s", lastWords(s, l))
	}
	for _, d := range slices.Sorted(maps.Keys(s.State.Quarantine)) {
		add("in quarantine: %s, failed in rollout %d: %s", s.Release(d), s.State.Quarantine[d].Rollout, s.State.Quarantine[d].Why)
	}
	return append(lines, p.readinessLines(s)...)
}

// standing tells what is live, in one line.
func (p *program) standing(s api.Status) []string {
	name := s.State.App + "/" + s.State.Env
	switch c := s.State.Current; {
	case c == nil:
		return []string{name + ": nothing is live"}
	case len(c.Components) == 0:
		return []string{fmt.Sprintf("%s: down; release %d was live", name, c.Number)}
	default:
		lines := []string{fmt.Sprintf("%s: %s (%s) is live%s", name, p.out.paint(bold, "release "+number(c.Number)), short(c.Release), at(s.URL))}
		if c.BreakGlass != "" {
			lines = append(lines, p.out.paint(red, "the glass was broken by "+c.BreakGlass))
		}
		if st := s.State.Standing; st != nil && st.Release == c.Release {
			lines = append(lines, p.out.paint(red, "the policy would not let it come back: "+st.Why))
		}
		return lines
	}
}

// flightLines tells of what is under way by kind, where that is more than plain
// requests, and of what was cut when its drain time was over.
func flightLines(s api.Status) []string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(s.Router.Kinds)) {
		if f := s.Router.Kinds[id]; f.WebSockets+f.Streams+f.GRPC+f.TCP > 0 {
			lines = append(lines, id+" has under way: "+flightWords(f))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Router.Cut)) {
		if f := s.Router.Cut[id]; f != (rollout.Flight{}) {
			lines = append(lines, id+" was left, and at the end of its drain time were cut: "+flightWords(f))
		}
	}
	return lines
}

func flightWords(f rollout.Flight) string {
	var words []string
	for _, k := range []struct {
		n    int
		what string
	}{{f.Requests, "request"}, {f.WebSockets, "WebSocket"}, {f.Streams, "event stream"}, {f.GRPC, "gRPC call"}, {f.TCP, "TCP connection"}} {
		if k.n > 0 {
			words = append(words, count(k.n, k.what))
		}
	}
	return strings.Join(words, ", ")
}

func jobWords(j rollout.Job, now time.Time) string {
	words := "runs next at " + when(j.Next)
	if j.Last != nil {
		words += "; the last time it " + hookWords(*j.Last, now)
	}
	return words
}

// readinessLines tells whether a rollback would work, as last rehearsed.
func (p *program) readinessLines(s api.Status) []string {
	r, to := s.State.Readiness, s.State.RollbackTo()
	switch {
	case s.State.Current == nil:
		return nil
	case to == "":
		return []string{"rollback: there is no proven release to go back to"}
	case r == nil || r.Release != to:
		return []string{"rollback: whether one to " + s.Release(to) + " would work is being tried out"}
	case r.OK:
		return []string{fmt.Sprintf("rollback: %s to %s, rehearsed since %s", p.out.paint(green, "would work"), s.Release(r.Release), age(s.Now.Sub(r.Since))+" ago")}
	}
	lines := []string{p.out.paint(red, "rollback: would not work") + " to " + s.Release(r.Release)}
	for _, w := range r.Why {
		lines = append(lines, "  "+w)
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
	rows := [][]string{{"COMPONENT", "INSTANCE", "RELEASE", "PHASE", "AGE", "IN FLIGHT"}}
	for _, o := range s.State.Instances {
		in, there := seen[o.ID]
		phase, old := string(in.Phase), ""
		if !there {
			phase = "ordered"
		} else {
			old = age(s.Now.Sub(in.StartedAt))
		}
		if o.Hook != "" {
			phase = "hook " + o.Hook + ", " + phase
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
