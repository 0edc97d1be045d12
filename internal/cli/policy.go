package cli

import (
	"context"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

func (p *program) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say what has to hold of a release before it may run in an environment",
		Long: "The policy of an environment is a file with named rules, each an expression over the facts that the server\n" +
			"finds out by itself: who signed, built, rebuilt and approved a release, where it was live and for how long,\n" +
			"what a database of vulnerabilities says. The server keeps it; no release brings its own judge. All rules have\n" +
			"to hold before a rollout begins, and again until the traffic has moved. What cannot be found out denies.\n\n" +
			"See docs/policy.md for the facts and the functions of rules.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.policySetCommand(), p.policyShowCommand(), p.policyRemoveCommand(), p.policyTestCommand(), p.policyFactsCommand(), p.policyDatabaseCommand())
	return cmd
}

func readPolicy(path string) (string, error) {
	text, err := readFile("the policy", path, policy.MaxSize)
	if err != nil {
		return "", fault.Of(err).Mend("name a file with a policy; docs/policy.md has an example")
	}
	if len(text) == 0 {
		return "", fault.New(fault.Invalid, "the policy is empty").At(path).Mend("a policy is removed with  ashlar policy remove")
	}
	return string(text), nil
}

func (p *program) policySetCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "set ENV FILE", Short: "Give an environment a policy, in place of the one that it has", Args: cobra.ExactArgs(2),
		Long: "The policy counts at once: a rollout in flight that has not moved the whole of the traffic yet and that it\n" +
			"does not admit is put back. What is live goes on.",
		ValidArgsFunction: p.completeEnvThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			document, err := readPolicy(args[1])
			if err != nil {
				return err
			}
			return p.inEnvironment(cmd, args[0], func(ctx context.Context, c *api.Client, app, env string) error {
				set, err := c.SetPolicy(ctx, api.PolicyRequest{App: app, Env: env, Name: args[1], Document: document, Reason: reason})
				switch {
				case err != nil:
					return err
				case p.json():
					p.out.json(set)
				case !set.Changed:
					p.out.linef("%s/%s has this policy already", app, env)
				default:
					p.out.linef("%s/%s has the policy %s; see what it says:  ashlar policy test %s", app, env, short(set.Digest), env)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func (p *program) policyShowCommand() *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use: "show ENV", Short: "Print the policy of an environment", Args: cobra.ExactArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inEnvironment(cmd, args[0], func(ctx context.Context, c *api.Client, app, env string) error {
				got, err := c.Policy(ctx, app, env, digest)
				switch {
				case err != nil:
					return err
				case p.json():
					p.out.json(got)
				case got.Digest == "":
					p.err.linef("%s/%s has no policy: every release is admitted", app, env)
				default:
					p.err.linef("policy %s", got.Digest)
					if got.Unsigned != "" {
						p.err.linef("its verdicts are not signed as verification summaries: %s  (ashlar server --deployer-key KEY)", got.Unsigned)
					} else {
						p.err.linef("its verdicts are signed as verification summaries by the key %.12s", got.Signer)
					}
					p.out.text(got.Document)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&digest, "digest", "", "one that is or was a policy, as the record names it")
	return cmd
}

func (p *program) policyRemoveCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "remove ENV", Aliases: []string{"rm"}, Short: "Take the policy of an environment away: every release is admitted then", Args: cobra.ExactArgs(1),
		ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inEnvironment(cmd, args[0], func(ctx context.Context, c *api.Client, app, env string) error {
				set, err := c.SetPolicy(ctx, api.PolicyRequest{App: app, Env: env, Reason: reason})
				switch {
				case err != nil:
					return err
				case p.json():
					p.out.json(set)
				case !set.Changed:
					p.out.linef("%s/%s has no policy", app, env)
				default:
					p.out.linef("%s/%s has no policy any more: every release is admitted", app, env)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record; there has to be one")
	return cmd
}

// questioning are the flags that say what is asked.
type questioning struct {
	kind, breakGlass, at, facts, file string
}

func (t *questioning) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.kind, "kind", policy.Deploy, "how the release comes: deploy or rollback")
	cmd.Flags().StringVar(&t.at, "at", "", "ask as if it were that time, such as 2030-01-01T09:00:00Z")
	cmd.Flags().StringVar(&t.breakGlass, "break-glass", "", "ask as if somebody wanted it in spite of the rules, for this reason")
	fixed(cmd, "kind", policy.Deploy, policy.Rollback)
}

// request puts the flags into words for the server.
func (t *questioning) request() (api.TestRequest, error) {
	q := api.TestRequest{Kind: t.kind, BreakGlass: t.breakGlass}
	if t.kind != policy.Deploy && t.kind != policy.Rollback {
		return q, fault.New(fault.Invalid, "kind %q is not known", t.kind).Detail("known: deploy, rollback").Mend("write  --kind deploy")
	}
	if t.at != "" {
		at, err := time.Parse(time.RFC3339, t.at)
		if err != nil {
			return q, fault.New(fault.Invalid, "%q is not a time", t.at).Mend("write it like  --at 2030-01-01T09:00:00Z")
		}
		q.At = at
	}
	if t.facts != "" {
		text, err := readFile("the facts", t.facts, policy.MaxFacts)
		if err != nil {
			return q, fault.Of(err).Mend("make them:  ashlar policy facts ENV > %s", t.facts)
		}
		f, err := policy.ParseFacts(t.facts, text)
		if err != nil {
			return q, err
		}
		if !q.At.IsZero() {
			f.Now = q.At
		}
		q.Facts = &f
	}
	if t.file != "" {
		text, err := readPolicy(t.file)
		if err != nil {
			return q, err
		}
		q.Document, q.Name = text, t.file
	}
	return q, nil
}

func (p *program) policyTestCommand() *cobra.Command {
	var t questioning
	cmd := &cobra.Command{
		Use:   "test [ENV [RELEASE]]",
		Short: "Tell rule by rule whether a policy admits a release, and why",
		Long: "Shows for each rule the facts that were looked at, and what would change the verdict. Without RELEASE (its\n" +
			"number or digest) the newest. With --policy another policy than the environment's, with --facts other facts\n" +
			"than the server's; with both no server is needed. Exit status 5: it would not be admitted.",
		Args: cobra.MaximumNArgs(2), ValidArgsFunction: p.completeEnvRelease,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := t.request()
			if err != nil {
				return err
			}
			tested, err := p.testPolicy(cmd.Context(), q, args)
			if err != nil {
				return err
			}
			return p.showTested(tested)
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&t.file, "policy", "", "file with the policy, in place of the environment's")
	cmd.Flags().StringVar(&t.facts, "facts", "", "file with facts, as  ashlar policy facts  prints them, in place of the server's")
	return cmd
}

func (p *program) testPolicy(ctx context.Context, q api.TestRequest, args []string) (api.Tested, error) {
	if q.Facts != nil && q.Document != "" {
		answer, err := p.parts.Judge(ctx, policy.Question{Name: q.Name, Document: []byte(q.Document), Facts: q.Facts})
		if err == nil && len(answer.Faults) > 0 {
			err = answer.Faults
		}
		return api.Tested{Facts: *q.Facts, Verdict: answer.Verdict}, err
	}
	c, err := p.client()
	if err != nil {
		return api.Tested{}, err
	}
	if q.App, q.Env, err = p.place(ctx, c, args); err != nil {
		return api.Tested{}, err
	}
	if len(args) > 1 {
		q.Release = args[1]
	}
	return c.TestPolicy(ctx, q)
}

func (p *program) policyFactsCommand() *cobra.Command {
	var t questioning
	cmd := &cobra.Command{
		Use: "facts [ENV [RELEASE]]", Short: "Print what is known of a release, as JSON, to develop policies with", Args: cobra.MaximumNArgs(2),
		ValidArgsFunction: p.completeEnvRelease,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := t.request()
			if err != nil {
				return err
			}
			q.FactsOnly = true
			tested, err := p.testPolicy(cmd.Context(), q, args)
			if err != nil {
				return err
			}
			p.out.json(tested.Facts)
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}

func (p *program) policyDatabaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "database FILE", Short: "Give the server a database of vulnerabilities in the OSV format", Args: cobra.ExactArgs(1),
		Long: "FILE holds records as a JSON array, one a line, or as the ZIP archive of an ecosystem that osv.dev\n" +
			"publishes. The server keeps it, named by its digest, in place of the one before. Nothing fetches a newer one\n" +
			"by itself: verdicts name the database and its date.",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			c, err := p.client()
			if err != nil {
				return err
			}
			db, err := c.SetDatabase(cmd.Context(), path)
			switch {
			case err != nil:
				return err
			case p.json():
				p.out.json(db)
			default:
				p.out.linef("database %s: %s, the newest of %s", short(db.Digest), count(db.Records, "record"), db.Date.UTC().Format(time.DateOnly))
			}
			return nil
		},
	}
}
