package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func (p *program) trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Say which keys may say what: the trust root",
		Long: "A trust root is one file: keys, what each may say, logs and witnesses, in versions that each were signed\n" +
			"by enough root keys of the one before. Who has its first version by a way that they trust can check all.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.trustInitCommand(), p.trustRotateCommand(), p.trustShowCommand(), p.trustCheckCommand(), p.trustInstallCommand())
	return cmd
}

// trustRoot reads a trust root.
func (p *program) trustRoot(path string) (*trust.Chain, error) {
	text, err := readFile("the trust root", path, trust.MaxRoot)
	if err != nil {
		return nil, fault.Of(err).Mend("name another, or make one:  ashlar trust init %s", path)
	}
	chain, err := trust.ParseChain(text)
	return chain, refusal(err, path)
}

// trustRootOr reads a trust root, or without a path the server's.
func (p *program) trustRootOr(ctx context.Context, path string) (*trust.Chain, error) {
	if path != "" {
		return p.trustRoot(path)
	}
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	text, err := c.Trust(ctx)
	if err != nil {
		return nil, err
	}
	chain, err := trust.ParseChain(text)
	return chain, refusal(err, "the server's trust root")
}

// refusal makes a fault of a verdict.
func refusal(err error, where string) error {
	var r *trust.Refusal
	if !errors.As(err, &r) {
		return err
	}
	return fault.New(fault.Refused, "%s", r.What).At(where).Detail("verdict: " + string(r.Verdict))
}

func (p *program) trustInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE",
		Short: "Give the server its trust root, or the next version of it",
		Long: "The server judges statements by it from then on. It remembers the newest version that it used: an older\n" +
			"one, or another, is refused. The record has who installed which version when.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := p.trustRoot(args[0])
			if err != nil {
				return err
			}
			text, err := chain.Marshal()
			if err != nil {
				return err
			}
			c, err := p.client()
			if err != nil {
				return err
			}
			if err := c.InstallTrust(cmd.Context(), text); err != nil {
				if f := fault.Of(err); f != nil && f.Where == "" {
					return f.At(args[0])
				}
				return err
			}
			return p.showTrust(chain)
		},
	}
}

func (p *program) trustCheckCommand() *cobra.Command {
	var before string
	cmd := &cobra.Command{
		Use:   "check FILE --before OLD",
		Short: "Check that a trust root goes on from the one that was used before",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := p.trustRoot(args[0])
			if err != nil {
				return err
			}
			old, err := p.trustRoot(before)
			if err != nil {
				return err
			}
			if err := refusal(chain.Follows(old), args[0]); err != nil {
				return err
			}
			if err := refusal(chain.Fresh(time.Now()), args[0]); err != nil {
				return err
			}
			return p.showTrust(chain)
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "the trust root that was used before")
	if err := cmd.MarkFlagRequired("before"); err != nil {
		panic(err) // the flag is not there
	}
	return cmd
}
