package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why [ENV]",
		Short: "Tell what an environment waits for, and what would end that",
		Long: "Tells for everything that is waited for: since when, until when at most, what would end it, and the\n" +
			"command that does. Nothing to wait for is an answer too.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error { return p.inPlace(cmd, args, p.why) },
	}
}

func (p *program) why(ctx context.Context, c *api.Client, app, env string) error {
	causes, err := c.Why(ctx, app, env)
	if err != nil {
		return err
	}
	if p.json() {
		p.out.json(causes)
		return nil
	}
	if len(causes) == 0 {
		s, err := c.Status(ctx, app, env)
		if err != nil {
			return err
		}
		p.out.linef("nothing is waited for in %s", env)
		p.out.linef("%s", p.standing(s)[0])
		return nil
	}
	for _, l := range causeLines(causes, time.Now()) {
		p.out.linef("%s", l)
	}
	return nil
}

// causeLines tells of causes in full.
func causeLines(causes []rollout.Cause, now time.Time) []string {
	var lines []string
	for i, c := range causes {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, "waits for "+c.What)
		if !c.Since.IsZero() {
			lines = append(lines, "  since:   "+age(now.Sub(c.Since))+" ago")
		}
		if !c.Till.IsZero() {
			lines = append(lines, "  at most: until "+c.Till.Local().Format(time.TimeOnly)+left(c.Till.Sub(now)))
		}
		if c.Unblock != "" {
			lines = append(lines, "  ends by: "+c.Unblock)
		}
		if c.Command != "" {
			lines = append(lines, "  command: "+c.Command)
		}
	}
	return lines
}

func left(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return ", " + age(d) + " from now"
}

// causeWords tells of a cause in one line.
func causeWords(c rollout.Cause, now time.Time) string {
	words := []string{c.What}
	if d := now.Sub(c.Since); !c.Since.IsZero() && d >= time.Second {
		words = append(words, "for "+age(d)+" now")
	}
	if c.Command != "" {
		words = append(words, "end it with  "+c.Command)
	}
	return strings.Join(words, "; ")
}
