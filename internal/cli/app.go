package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// definition reads ashlar.yaml strictly, as a build needs it.
func (p *program) definition() (*definition.Definition, error) {
	src, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.noFile()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the definition: %w", err).At(p.file)
	}
	return definition.Parse(filepath.ToSlash(p.file), src, dirFiles(filepath.Dir(p.file)))
}

func (p *program) noFile() *fault.Error {
	return fault.New(fault.NotFound, "there is no definition here").At(p.file).
		Mend("write one:  ashlar init  or name it:  --file FILE")
}

// dirFiles reads the files that a definition names.
type dirFiles string

// ReadFile reads one file below the directory.
func (d dirFiles) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), filepath.FromSlash(name)))
}

// outline is what of an ashlar.yaml is enough to talk about what runs: unlike a
// definition it can be had when the file has mistakes, or its inputs are gone.
type outline struct {
	App          string        `yaml:"app"`
	Components   yaml.MapSlice `yaml:"components"`
	Environments yaml.MapSlice `yaml:"environments"`
}

func (p *program) outline() (outline, bool) {
	src, err := os.ReadFile(p.file)
	if err != nil {
		return outline{}, false
	}
	var o outline
	if err := yaml.Unmarshal(src, &o); err != nil {
		return outline{}, false
	}
	return o, true
}

func keys(m yaml.MapSlice) []string {
	var names []string
	for _, item := range m {
		if name, ok := item.Key.(string); ok {
			names = append(names, name)
		}
	}
	return names
}

// place finds the application and the environment that a command is about: --app
// and the argument, else ashlar.yaml, else what the server has if that is
// unambiguous.
func (p *program) place(ctx context.Context, c *api.Client, args []string) (app, env string, err error) {
	if len(args) > 0 {
		env = args[0]
	}
	app = p.app
	var envs []string
	if o, ok := p.outline(); ok && app == "" {
		app, envs = o.App, keys(o.Environments)
	}
	if app != "" && env != "" {
		return app, env, nil
	}
	if app != "" && len(envs) == 1 {
		return app, envs[0], nil
	}
	if app != "" && len(envs) > 1 {
		return "", "", ambiguous(p.file, envs)
	}
	return p.placeOfServer(ctx, c, app, env)
}

func (p *program) placeOfServer(ctx context.Context, c *api.Client, app, env string) (string, string, error) {
	list, err := c.Environments(ctx)
	if err != nil {
		return "", "", err
	}
	var fits []api.Environment
	var names []string
	for _, e := range list {
		if (app == "" || e.App == app) && (env == "" || e.Env == env) {
			fits = append(fits, e)
			names = append(names, e.App+"/"+e.Env)
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0].App, fits[0].Env, nil
	case len(fits) > 1:
		return "", "", fault.New(fault.Invalid, "it is not clear which environment is meant").
			Detail("known: "+strings.Join(names, ", ")).Mend("name it:  --app %s %s", fits[0].App, fits[0].Env)
	case app == "":
		return "", "", fault.New(fault.Invalid, "it is not clear which application is meant").At(p.file).
			Mend("name it:  --app APP  or run the command beside its ashlar.yaml")
	default:
		return "", "", fault.New(fault.NotFound, "the server has no environment of application %s", app).
			Mend("deploy to one:  ashlar deploy ENV")
	}
}

func ambiguous(file string, envs []string) error {
	return fault.New(fault.Invalid, "there are %d environments, and none is named", len(envs)).At(file).
		Detail("known: "+strings.Join(envs, ", ")).Mend("name one of them as the argument, such as  %s", envs[0])
}

// environmentOf picks the environment of a definition.
func environmentOf(def *definition.Definition, file string, args []string) (string, error) {
	var names []string
	for _, e := range def.Environments {
		names = append(names, e.Name)
	}
	switch {
	case len(args) == 0 && len(names) == 1:
		return names[0], nil
	case len(args) == 0:
		return "", ambiguous(file, names)
	case slices.Contains(names, args[0]):
		return args[0], nil
	}
	return "", fault.New(fault.NotFound, "environment %q is not in the definition", args[0]).At(file).
		Detail("known: " + strings.Join(names, ", ")).Mend("name one of them, or add it under  environments:")
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

// completeReleases offers the releases that an environment can roll back to.
func (p *program) completeReleases(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return p.completeEnvs(cmd, args, toComplete)
	}
	c, err := p.client()
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	app, env, err := p.place(cmd.Context(), c, args)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	h, err := c.History(cmd.Context(), app, env)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, r := range slices.Backward(h.Releases) {
		if slices.Contains(r.KnownGood, env) && !slices.Contains(r.LiveIn, env) && !r.Collected {
			names = append(names, cobra.CompletionWithDesc(number(r.Number), "of "+r.Created.Format("2006-01-02 15:04")))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
