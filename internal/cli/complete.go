package cli

import (
	"context"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
)

// takesFiles finds in a command's usage that its arguments are files.
var takesFiles = regexp.MustCompile(`\b(FILE|BUNDLE|DIR)\b`)

// completeFiles offers files alone.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeArguments keeps shells from offering files where none are meant.
func completeArguments(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && !takesFiles.MatchString(cmd.Use) {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range cmd.Commands() {
		completeArguments(sub)
	}
}

// completeEnvs offers the environments of ashlar.yaml, or of the server.
func (p *program) completeEnvs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.knownEnvs(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

func (p *program) knownEnvs(ctx context.Context) []string {
	if o, ok := p.outline(); ok && p.app == "" {
		return keys(o.Environments)
	}
	c, err := p.client()
	if err != nil {
		return nil
	}
	list, err := c.Environments(ctx)
	if err != nil {
		return nil // completion stays silent
	}
	var names []string
	for _, e := range list {
		if p.app == "" || e.App == p.app {
			names = append(names, e.Env)
		}
	}
	return names
}

// completeTwoEnvs offers environments twice.
func (p *program) completeTwoEnvs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.DeleteFunc(p.knownEnvs(cmd.Context()), func(env string) bool { return slices.Contains(args, env) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeEnvOrFile offers environments beside files.
func (p *program) completeEnvOrFile(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.knownEnvs(cmd.Context()), cobra.ShellCompDirectiveDefault
}

// completeEnvThenFile offers environments, then files.
func (p *program) completeEnvThenFile(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return p.completeEnvs(cmd, args, toComplete)
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeRollback offers the releases that an environment can roll back to.
func (p *program) completeRollback(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return p.completeEnvThen(cmd, args, toComplete, func(env string, r api.HistoryRelease) bool {
		return slices.Contains(r.KnownGood, env) && !slices.Contains(r.LiveIn, env) && !r.Collected
	})
}

// completeEnvRelease offers environments, then every release.
func (p *program) completeEnvRelease(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return p.completeEnvThen(cmd, args, toComplete, func(string, api.HistoryRelease) bool { return true })
}

func (p *program) completeEnvThen(cmd *cobra.Command, args []string, toComplete string, fits func(env string, r api.HistoryRelease) bool) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return p.completeEnvs(cmd, args, toComplete)
	}
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	err := p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
		h, err := c.History(ctx, app, env)
		names = releaseNames(h, func(r api.HistoryRelease) bool { return fits(env, r) })
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // completion stays silent
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeRelease offers every release of the application.
func (p *program) completeRelease(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	err := p.inApplication(cmd, func(ctx context.Context, c *api.Client, app string) error {
		h, err := c.History(ctx, app, "")
		names = releaseNames(h, func(api.HistoryRelease) bool { return true })
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // completion stays silent
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// releaseNames gives releases that fit by number, the newest first.
func releaseNames(h api.History, fits func(api.HistoryRelease) bool) []string {
	var names []string
	for _, r := range slices.Backward(h.Releases) {
		if fits(r) {
			names = append(names, cobra.CompletionWithDesc(number(r.Number), "of "+r.Created.Format("2006-01-02 15:04")))
		}
	}
	return names
}

// completeQueue offers the releases that wait.
func (p *program) completeQueue(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var numbers []string
	err := p.inPlace(cmd, args, func(ctx context.Context, c *api.Client, app, env string) error {
		s, err := c.Status(ctx, app, env)
		for _, q := range s.State.Queue {
			numbers = append(numbers, cobra.CompletionWithDesc(number(q.To.Number), q.Kind+" by "+q.Actor))
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // completion stays silent
	}
	return numbers, cobra.ShellCompDirectiveNoFileComp
}

// completeQuarantine offers the releases in quarantine.
func (p *program) completeQuarantine(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	err := p.inApplication(cmd, func(ctx context.Context, c *api.Client, app string) error {
		list, err := c.Quarantine(ctx, app)
		for _, q := range list {
			names = append(names, cobra.CompletionWithDesc(number(q.Number), "failed in "+q.Env))
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // completion stays silent
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeArtifacts offers components, and those of environments.
func (p *program) completeArtifacts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.completeFirst(args, func(o outline) []string {
		return slices.Concat(keys(o.Components), ofEnvs(o, p.knownEnvs(cmd.Context())))
	})
}

// completeEnvComponents offers environments, and their components.
func (p *program) completeEnvComponents(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.completeFirst(args, func(o outline) []string {
		envs := p.knownEnvs(cmd.Context())
		return slices.Concat(envs, ofEnvs(o, envs))
	})
}

// completePushed offers what `ashlar push` knows by name.
func (p *program) completePushed(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.completeFirst(args, func(o outline) []string {
		envs := p.knownEnvs(cmd.Context())
		return slices.Concat(envs, keys(o.Components), ofEnvs(o, envs))
	})
}

// completeFirst offers names for the first argument; without an ashlar.yaml of an empty outline.
func (p *program) completeFirst(args []string, names func(outline) []string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	o, _ := p.outline()
	return names(o), cobra.ShellCompDirectiveNoFileComp
}

// ofEnvs are the components of an outline in each environment.
func ofEnvs(o outline, envs []string) []string {
	var names []string
	for _, env := range envs {
		for _, c := range keys(o.Components) {
			names = append(names, env+"/"+c)
		}
	}
	return names
}

// completes registers what a flag's value is completed with.
func completes(cmd *cobra.Command, flag string, names cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, names); err != nil {
		panic(err) // the flag is not there
	}
}

// whatever is a completion for a flag, which does not depend on the arguments.
func whatever(names cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return names(cmd, nil, toComplete)
	}
}

// fixed completes a flag's value with one of a few.
func fixed(cmd *cobra.Command, flag string, values ...string) {
	completes(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
