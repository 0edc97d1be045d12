package cli

import (
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
)

func (p *program) gcCommand() *cobra.Command {
	var q api.GCRequest
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no kept release needs",
		Long: "Removes objects that belong to no release that runs, is being rolled out, is among the last\n" +
			"known-good ones of an environment (`keep:`), or is the newest of its application, and that no build\n" +
			"of the last 30 days made use of. Rolling back to a kept release stays possible.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			r, err := c.GC(cmd.Context(), q)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(r)
				return nil
			}
			verb := "removed"
			if q.DryRun {
				verb = "would remove"
			}
			p.out.linef("%s %s, %s, and %d entries of the build cache", verb, count(r.Removed.Objects, "object"), size(r.Removed.Bytes), r.Refs)
			if r.Secrets > 0 {
				p.out.linef("%s %s of secrets that no kept release names", verb, count(r.Secrets, "old version"))
			}
			p.out.linef("kept %s, %s, for %s", count(r.Kept.Objects, "object"), size(r.Kept.Bytes), count(len(r.Releases), "release"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.Flags().IntVar(&q.Keep, "keep", 0, "known-good releases to keep per environment; 0: what each environment says")
	return cmd
}
