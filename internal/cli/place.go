package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

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

// application finds the application that a command is about: --app, else ashlar.yaml, else
// the server's if it has one alone.
func (p *program) application(ctx context.Context, c *api.Client) (string, error) {
	if p.app != "" {
		return p.app, nil
	}
	if o, ok := p.outline(); ok && o.App != "" {
		return o.App, nil
	}
	list, err := c.Environments(ctx)
	if err != nil {
		return "", err
	}
	apps := map[string]bool{}
	for _, e := range list {
		apps[e.App] = true
	}
	if len(apps) == 1 {
		return list[0].App, nil
	}
	return "", fault.New(fault.Invalid, "it is not clear which application is meant").At(p.file).
		Mend("name it:  --app APP  or run the command beside its ashlar.yaml")
}

// applicationOf is application for a command about an environment to which nothing need
// have been deployed yet: a policy may come first.
func (p *program) applicationOf(ctx context.Context, c *api.Client, env string) (string, error) {
	app, err := p.application(ctx, c)
	if err != nil {
		return "", err
	}
	if o, ok := p.outline(); ok && o.App == app {
		if names := keys(o.Environments); len(names) > 0 && !slices.Contains(names, env) {
			return "", fault.New(fault.NotFound, "%s has no environment %q", app, env).At(p.file).Detail("known: " + strings.Join(names, ", ")).Mend("name one of them, or add it under  environments:")
		}
	}
	return app, nil
}

// releaseNamed asks the server for a release by number or digest.
func (p *program) releaseNamed(ctx context.Context, name string) (api.Release, error) {
	c, err := p.client()
	if err != nil {
		return api.Release{}, err
	}
	app, err := p.application(ctx, c)
	if err != nil {
		return api.Release{}, err
	}
	return c.Release(ctx, app, name)
}

// inPlace runs a command about one environment.
func (p *program) inPlace(cmd *cobra.Command, args []string, do func(ctx context.Context, c *api.Client, app, env string) error) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	app, env, err := p.place(cmd.Context(), c, args)
	if err != nil {
		return err
	}
	return do(cmd.Context(), c, app, env)
}

// inEnvironment runs a command about an environment that is named, and to which nothing need
// have been deployed yet.
func (p *program) inEnvironment(cmd *cobra.Command, env string, do func(ctx context.Context, c *api.Client, app, env string) error) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	app, err := p.applicationOf(cmd.Context(), c, env)
	if err != nil {
		return err
	}
	return do(cmd.Context(), c, app, env)
}

// inApplication runs a command about one application.
func (p *program) inApplication(cmd *cobra.Command, do func(ctx context.Context, c *api.Client, app string) error) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	app, err := p.application(cmd.Context(), c)
	if err != nil {
		return err
	}
	return do(cmd.Context(), c, app)
}
