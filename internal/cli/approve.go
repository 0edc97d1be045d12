package cli

import (
	"context"
	"crypto"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// approving is what an approver says.
type approving struct {
	env, key, reason string
	valid            time.Duration
	breakGlass       bool
}

func (p *program) approveCommand() *cobra.Command {
	var a approving
	cmd := &cobra.Command{
		Use:   "approve RELEASE --env ENV",
		Short: "Say, with an approver's key, that a release may go to an environment",
		Long: "Signs a statement about the digest of the release document and the environment, has the server record it, and\n" +
			"keeps it beside the release, where the environment's policy finds it. The key is approver.key of the directory\n" +
			"of the keys, unless --key names another; the trust root has to know it as an approver's.\n\n" +
			"With --break-glass it says that the release may go there in spite of the policy, which needs as many approvers\n" +
			"as the policy asks for, and counts for a day unless --valid says otherwise. It is no approval otherwise.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: p.completeRelease,
		RunE: func(cmd *cobra.Command, args []string) error { return p.approve(cmd.Context(), args[0], a) },
	}
	cmd.Flags().StringVar(&a.env, "env", "", "environment that the release may go to")
	cmd.Flags().StringVar(&a.key, "key", "", "private key: a file, or an address as  ashlar key use  takes it")
	cmd.Flags().StringVar(&a.reason, "reason", "", "why, for the record")
	cmd.Flags().DurationVar(&a.valid, "valid", 0, "how long it counts, such as 48h; 0: for ever, with --break-glass a day")
	cmd.Flags().BoolVar(&a.breakGlass, "break-glass", false, "in spite of the policy; with a reason")
	completes(cmd, "env", whatever(p.completeEnvs))
	return cmd
}

// approved is what approve answers.
type approved struct {
	App        string         `json:"app"`
	Env        string         `json:"env"`
	Release    api.ReleaseRef `json:"release"`
	Key        trust.KeyID    `json:"key"`
	Index      int64          `json:"index"` // place in the record
	BreakGlass bool           `json:"breakGlass,omitempty"`
	Until      time.Time      `json:"until,omitzero"`
}

func (p *program) approve(ctx context.Context, ref string, a approving) error {
	switch {
	case a.env == "":
		return fault.New(fault.Invalid, "it is not said where the release may go").Mend("name the environment:  --env production")
	case a.breakGlass && strings.TrimSpace(a.reason) == "":
		return fault.New(fault.Invalid, "who breaks the glass says why").Mend(`add  --reason "..."`)
	case a.valid < 0:
		return fault.New(fault.Invalid, "an approval cannot count for %s", a.valid).Mend("write  --valid 48h")
	case a.breakGlass && a.valid == 0:
		a.valid = 24 * time.Hour
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	app, err := p.applicationOf(ctx, c, a.env)
	if err != nil {
		return err
	}
	rel, err := c.Release(ctx, app, ref)
	if err != nil {
		return err
	}
	if _, ok := rel.Release.Environments[a.env]; !ok {
		return fault.New(fault.NotFound, "release %d has no environment %q", rel.Number, a.env).Detail("known: " + strings.Join(slices.Sorted(maps.Keys(rel.Release.Environments)), ", ")).Mend("name one of them:  --env ENV")
	}
	said := policy.ApprovalPredicate{Environment: a.env, Reason: a.reason, BreakGlass: a.breakGlass}
	if a.valid > 0 {
		said.Until = time.Now().UTC().Add(a.valid).Truncate(time.Second)
	}
	predicate, err := said.Marshal()
	if err != nil {
		return err
	}
	signer, err := p.approver(a.key)
	if err != nil {
		return err
	}
	made, err := p.say(ctx, "approval", app, rel, predicate, signer)
	if err != nil {
		return err
	}
	out := approved{App: app, Env: a.env, Release: rel.ReleaseRef, Key: made.key.ID(), Index: made.bundle.Log.Proof.Index, BreakGlass: a.breakGlass, Until: said.Until}
	if p.json() {
		p.out.json(out)
		return nil
	}
	words := "approved for"
	if a.breakGlass {
		words = "may, in spite of the policy, go to"
	}
	p.out.linef("release %d %s %s/%s: entry %d of the record, key %.12s", rel.Number, words, app, a.env, out.Index, out.Key)
	return nil
}

// approver is the key that is named, or the one in the directory of the keys.
func (p *program) approver(key string) (crypto.Signer, error) {
	if key == "" {
		return p.signerOf(trust.RoleApprover)
	}
	signers, err := p.signers([]string{key})
	if err != nil {
		return nil, err
	}
	return signers[0], nil
}

// say signs a statement about a release document, has it recorded, and keeps it beside
// the document.
func (p *program) say(ctx context.Context, kind, app string, rel api.Release, predicate []byte, signer crypto.Signer) (signed, error) {
	document, err := rel.Release.Canonical()
	if err != nil {
		return signed{}, err
	}
	return p.sayOf(ctx, kind, app, rel.ReleaseRef, document, predicate, signer)
}

func (p *program) sayOf(ctx context.Context, kind, app string, rel api.ReleaseRef, document, predicate []byte, signer crypto.Signer) (signed, error) {
	dir, err := p.stateDir()
	if err != nil {
		return signed{}, err
	}
	k, _ := trust.KindOf(kind)
	statement, err := trust.NewStatement(k, app, rel.Digest, predicate)
	if err != nil {
		return signed{}, fault.New(fault.Internal, "%w", err)
	}
	key, err := trust.NewPublicKey(signer.Public())
	if err != nil {
		return signed{}, fault.New(fault.Invalid, "the key cannot be used: %w", err).Mend("make one:  ashlar key new NAME")
	}
	b, err := trust.Sign(statement, signer, rand.Reader)
	if err != nil {
		return signed{}, err
	}
	one := []signed{{rel.Digest, b, key}}
	if err := p.logSigned(ctx, dir, one); err != nil {
		return signed{}, err
	}
	text, err := one[0].bundle.Marshal()
	if err != nil {
		return signed{}, err
	}
	return one[0], p.parts.Statements.Attach(ctx, dir, []AttachStatement{{About: rel.Digest, Bundle: text, Document: document}})
}
