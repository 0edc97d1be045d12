package cli

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func (p *program) trustShowCommand() *cobra.Command {
	var sigstore bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show a trust root (without a file, the server's), or give it to others' verifiers",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := p.trustRootOr(cmd.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			if !sigstore {
				return p.showTrust(chain)
			}
			text, err := chain.Latest().SigstoreRoot()
			if err != nil {
				return fault.New(fault.Invalid, "%w", err)
			}
			p.out.text(string(text))
			return nil
		},
	}
	cmd.Flags().BoolVar(&sigstore, "sigstore", false, "print its logs as a trusted_root.json, which cosign reads")
	return cmd
}

func (p *program) showTrust(chain *trust.Chain) error {
	r := chain.Latest()
	if p.json() {
		p.out.json(struct {
			ID string `json:"id"`
			trust.Root
		}{string(chain.ID()), r})
		return nil
	}
	p.out.linef("trust root %s, version %d, expires %s", short(chain.ID()), r.Version, r.Expires.Format(time.DateOnly))
	for _, role := range trust.Roles() {
		h, ok := r.Roles[role]
		if !ok {
			continue
		}
		for i, id := range h.KeyIDs {
			need := ""
			if i == 0 && h.Threshold > 1 {
				need = fmt.Sprintf("  (%d of %d)", h.Threshold, len(h.KeyIDs))
			}
			p.out.linef("  %-9s  %s  %s%s", role, id[:12], r.Keys[id].Owner, need)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Logs)) {
		l := r.Logs[name]
		p.out.linef("  log        %s from entry %d, %d of %d witnesses", name, l.From, l.Quorum, len(l.Witnesses))
	}
	for _, id := range slices.Sorted(maps.Keys(r.Revoked)) {
		p.out.linef("  revoked    %s  %s", id[:12], r.Revoked[id].Reason)
	}
	return nil
}
