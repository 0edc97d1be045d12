package cli

import (
	"cmp"
	"errors"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// bills are what is written from a ledger, by format.
var bills = map[string]func(*ledger.Book) ([]byte, error){"spdx": ledger.SPDX, "cyclonedx": ledger.CycloneDX}

func (p *program) sbomCommand() *cobra.Command {
	var flags artifactFlags
	format := "spdx"
	cmd := &cobra.Command{
		Use:   "sbom [ENV/]COMPONENT",
		Short: "Write the bill of materials of an artifact: SPDX 2.3 or CycloneDX 1.6",
		Long: "Lists the packages, programs, modules and base images that an artifact is made of. It is derived from the\n" +
			"ledger of the build and not from a scan, and the same artifact gives the same bytes.\n\n" + artifactHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := bills[format]
			if !ok {
				return fault.New(fault.Invalid, "the format %q is not known", format).Detail("known: cyclonedx, spdx").Mend("write  --format spdx")
			}
			return p.derived(cmd, args[0], flags, write)
		},
	}
	flags.add(p, cmd)
	cmd.Flags().StringVar(&format, "format", format, "spdx or cyclonedx")
	fixed(cmd, "format", "spdx", "cyclonedx")
	return cmd
}

func (p *program) provenanceCommand() *cobra.Command {
	var flags artifactFlags
	var builder string
	cmd := &cobra.Command{
		Use:   "provenance [ENV/]COMPONENT",
		Short: "Write what an artifact was built from: the predicate of a SLSA provenance v1",
		Long: "Names every input with its digest: packages and the index they were chosen from, modules, source files. It\n" +
			"is the predicate alone;  ashlar statement sign  makes a signed statement of it.\n\n" + artifactHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.derived(cmd, args[0], flags, func(b *ledger.Book) ([]byte, error) { return ledger.Provenance(b, builder) })
		},
	}
	flags.add(p, cmd)
	cmd.Flags().StringVar(&builder, "builder", ledger.LocalBuilder, "URI of who builds")
	return cmd
}

// derived writes a document that is a function of a ledger.
func (p *program) derived(cmd *cobra.Command, arg string, flags artifactFlags, write func(*ledger.Book) ([]byte, error)) error {
	s, err := p.artifact(cmd.Context(), arg, flags)
	if err != nil {
		return err
	}
	defer s.close()
	doc, err := write(s.book)
	if err != nil {
		return err
	}
	p.out.text(string(doc) + "\n")
	return nil
}

// readObject reads a small object.
func readObject(o image.Opener, d digest.Digest) (b []byte, err error) {
	r, err := o.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err = io.ReadAll(io.LimitReader(r, image.ManifestLimit))
	if err == nil && digest.FromBytes(b) != d {
		err = fault.New(fault.Refused, "object %s is damaged", d).Mend("build again")
	}
	return b, err
}

// sortBelow puts what has most bytes first.
func sortBelow(b []belowOrigin) {
	slices.SortStableFunc(b, func(x, y belowOrigin) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(y.Entries, x.Entries), cmp.Compare(x.Name, y.Name))
	})
}
