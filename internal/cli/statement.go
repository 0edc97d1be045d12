package cli

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func (p *program) statementCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "statement",
		Short: "Sign and verify statements about artifacts",
		Long: "A statement says something about an artifact: where it is from, what is in it, that it may run. It is an\n" +
			"in-toto statement in a Sigstore bundle, signed by a key whose role is to say that, and recorded in the\n" +
			"server's log, whose proof it carries. Kinds: " + strings.Join(trust.KindNames(), ", ") + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.statementSignCommand(), p.statementVerifyCommand(), p.statementAttachCommand())
	return cmd
}

// about are the flags that say what a statement is about.
type about struct{ kind, subject string }

func (a *about) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.kind, "kind", "", "what it says: "+strings.Join(trust.KindNames(), ", "))
	cmd.Flags().StringVar(&a.subject, "about", "", "digest of the artifact: sha256:…")
	fixed(cmd, "kind", trust.KindNames()...)
}

func (a *about) read() (trust.Kind, digest.Digest, error) {
	k, ok := trust.KindOf(a.kind)
	if !ok {
		return k, "", fault.New(fault.Invalid, "there is no kind of statement %q", a.kind).Detail("known: " + strings.Join(trust.KindNames(), ", ")).Mend("write  --kind signature")
	}
	d, err := digest.Parse(a.subject)
	if err != nil {
		return k, d, fault.New(fault.Invalid, "%q is not a digest: %w", a.subject, err).Mend("write  --about sha256:…")
	}
	return k, d, nil
}

func (p *program) statementSignCommand() *cobra.Command {
	var a about
	var key, predicate, name string
	var offline bool
	cmd := &cobra.Command{
		Use:     "sign --key KEY --kind KIND --about DIGEST",
		Short:   "Sign a statement, have the server record it, and print the bundle",
		Example: "  ashlar statement sign --key release.key --kind signature --about sha256:… > signature.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kind, subject, err := a.read()
			if err != nil {
				return err
			}
			var content []byte
			if predicate != "" {
				if content, err = readFile("the predicate", predicate, trust.MaxStatement); err != nil {
					return err
				}
			}
			s, err := trust.NewStatement(kind, name, subject, content)
			if err != nil {
				return fault.New(fault.Invalid, "%w", err).At(predicate)
			}
			signers, err := p.signers([]string{key})
			if err != nil {
				return err
			}
			b, err := trust.Sign(s, signers[0], rand.Reader)
			if err != nil {
				return err
			}
			if !offline {
				if err := p.logBundle(cmd.Context(), &b, signers[0].Public()); err != nil {
					return err
				}
			}
			text, err := b.Marshal()
			if err != nil {
				return err
			}
			p.out.text(string(text) + "\n")
			return nil
		},
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&key, "key", "", "private key: a file, or an address as  ashlar key use  takes it")
	cmd.Flags().StringVar(&predicate, "predicate", "", "file with what is said, a JSON object; without it: {}")
	cmd.Flags().StringVar(&name, "name", "", "name of the artifact, for people")
	cmd.Flags().BoolVar(&offline, "unrecorded", false, "do not have it recorded: it bears no proof then")
	return cmd
}

// logBundle has the server record the statement and puts the proof into the bundle.
func (p *program) logBundle(ctx context.Context, b *trust.Bundle, public any) error {
	key, err := trust.NewPublicKey(public)
	if err != nil {
		return err
	}
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	one := []signed{{bundle: *b, key: key}}
	err = p.logSigned(ctx, dir, one)
	*b = one[0].bundle
	return err
}

func (p *program) statementVerifyCommand() *cobra.Command {
	var a about
	var rootPath string
	var unrecorded bool
	cmd := &cobra.Command{
		Use:   "verify BUNDLE...",
		Short: "Verify statements with a trust root, without a server or network",
		Long:  "Says whether as many keys as the role needs say this about the artifact, and since which entry of which\nlog. Every refusal names its verdict.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, subject, err := a.read()
			if err != nil {
				return err
			}
			chain, err := p.trustRoot(rootPath)
			if err != nil {
				return err
			}
			var bundles [][]byte
			for _, path := range args {
				text, err := readFile("the bundle", path, trust.MaxBundle)
				if err != nil {
					return err
				}
				bundles = append(bundles, text)
			}
			got, err := chain.VerifyAll(bundles, trust.Want{Kind: kind, About: subject, NoProof: unrecorded}, time.Now())
			if err != nil {
				return refusal(err, strings.Join(args, " "))
			}
			return p.showVerified(kind, got)
		},
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&rootPath, "trust-root", "trust.json", "the trust root")
	cmd.Flags().BoolVar(&unrecorded, "unrecorded", false, "believe statements also without a proof that they are recorded")
	return cmd
}

func (p *program) showVerified(kind trust.Kind, got []trust.Verified) error {
	if p.json() {
		p.out.json(got)
		return nil
	}
	for _, v := range got {
		where := "not recorded"
		if v.Index >= 0 {
			where = "entry " + number(int(v.Index)) + " of " + v.Log
		}
		if n := len(v.Seen); n > 0 {
			where += ", seen by " + count64(int64(n), "witness", "witnesses")
		}
		p.out.linef("%s by %s (%s %s), %s", kind.Name, v.Owner, kind.Role, v.Key[:12], where)
	}
	return nil
}
