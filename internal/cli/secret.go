package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// maxValue is how much of a value is read. The server takes less: it says how much.
const maxValue = 1 << 20

func (p *program) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Set, list and remove the secrets of an environment",
		Long: "Secrets are kept by the server, encrypted. A release names versions of them and holds no value: to\n" +
			"rotate one, set it and deploy; a rollback goes back to the versions of its release.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.secretSetCommand(), p.secretListCommand(), p.secretRemoveCommand())
	return cmd
}

func (p *program) secretSetCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "set [ENV] NAME",
		Short: "Add a version of a secret",
		Long: "Adds a version with the value from standard input, without the newline at its end; on a terminal it\n" +
			"is asked for and not shown. It is never an argument, which others on the machine could read.\n" +
			"Running instances keep the version of their release: the next deploy takes the new one.",
		Example: "  ashlar secret set production redis-password < password.txt\n" +
			"  openssl rand -base64 32 | ashlar secret set production session-key",
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			return p.inPlace(cmd, args[:last], func(ctx context.Context, c *api.Client, app, env string) error {
				return p.setSecret(ctx, c, api.SetSecret{App: app, Env: env, Name: args[last]}, file)
			})
		},
	}
	cmd.Flags().StringVar(&file, "from-file", "", "read the value from this file, byte for byte")
	return cmd
}

func (p *program) setSecret(ctx context.Context, c *api.Client, q api.SetSecret, file string) (err error) {
	if q.Value, err = p.readSecret(q.Name, file); err != nil {
		return err
	}
	v, err := c.SetSecret(ctx, q)
	if err != nil {
		return err
	}
	if p.json() {
		p.out.json(v)
		return nil
	}
	p.out.linef("version %d of secret %s is set in %s; to use it:  ashlar deploy %s", v.Version, v.Name, q.Env, q.Env)
	return nil
}

// readSecret reads a value: the bytes of a file, what a person types unseen, or standard
// input without one newline at its end.
func (p *program) readSecret(name, file string) ([]byte, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.New(fault.Invalid, "cannot read the value: %w", err).At(file)
		}
		value, err := io.ReadAll(io.LimitReader(f, maxValue))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fault.New(fault.Invalid, "cannot read the value: %w", err).At(file)
		}
		return value, nil
	}
	in, ok := p.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		value, err := io.ReadAll(io.LimitReader(p.in, maxValue))
		if err != nil {
			return nil, fault.New(fault.Invalid, "cannot read the value from standard input: %w", err)
		}
		if n := len(value); n > 0 && value[n-1] == '\n' {
			value = value[:n-1]
		}
		return value, nil
	}
	p.err.text("value of " + name + " (it is not shown): ")
	value, err := term.ReadPassword(int(in.Fd()))
	p.err.linef("")
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the value from the terminal: %w", err)
	}
	return value, nil
}

func (p *program) secretListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [ENV]",
		Short: "List the versions of secrets, without their values",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error { return p.inPlace(cmd, args, p.listSecrets) },
	}
}

func (p *program) listSecrets(ctx context.Context, c *api.Client, app, env string) error {
	list, err := c.Secrets(ctx, app, env, true)
	if err != nil {
		return err
	}
	switch {
	case p.json():
		p.out.json(list)
	case len(list) == 0:
		p.out.linef("%s has no secrets; to set one:  ashlar secret set %s NAME", env, env)
	default:
		p.out.table(secretRows(list))
	}
	return nil
}

func secretRows(list []api.Secret) [][]string {
	rows := [][]string{{"SECRET", "VERSION", "SET", "ENCRYPTED", "NEEDED BY RELEASE"}}
	for _, s := range list {
		var needed []string
		for _, r := range s.Needed {
			needed = append(needed, number(r.Number))
		}
		rows = append(rows, []string{s.Name, number(s.Version), when(s.Set), short(s.Sealed), strings.Join(needed, ", ")})
	}
	return rows
}

func (p *program) secretRemoveCommand() *cobra.Command {
	var ask question
	cmd := &cobra.Command{
		Use:   "rm ENV NAME [VERSION]",
		Short: "Remove a secret, or one version, that no kept release needs",
		Args:  cobra.RangeArgs(2, 3), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := api.RemoveSecret{Name: args[1]}
			what := "every version of secret " + q.Name
			if len(args) > 2 {
				var err error
				if q.Version, err = strconv.Atoi(args[2]); err != nil || q.Version < 1 {
					return fault.New(fault.Invalid, "%q is no version of a secret", args[2]).Mend("list them:  ashlar secret ls %s", args[0])
				}
				what = "version " + args[2] + " of secret " + q.Name
			}
			return p.inPlace(cmd, args[:1], func(ctx context.Context, c *api.Client, app, env string) error {
				q.App, q.Env = app, env
				return p.removeSecret(ctx, c, q, ask, what)
			})
		},
	}
	ask.add(cmd)
	return cmd
}

func (p *program) removeSecret(ctx context.Context, c *api.Client, q api.RemoveSecret, ask question, what string) error {
	if err := p.confirm(ctx, ask, "Remove "+what+" of "+q.Env+" for good?"); err != nil {
		return err
	}
	gone, err := c.RemoveSecret(ctx, q)
	if err != nil {
		return err
	}
	if p.json() {
		p.out.json(gone)
		return nil
	}
	p.out.linef("removed %s of secret %s from %s", count(len(gone), "version"), q.Name, q.Env)
	return nil
}
