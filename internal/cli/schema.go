package cli

import (
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/definition"
)

func (p *program) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of ashlar.yaml, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p.out.text(string(definition.Schema()))
			return nil
		},
	}
}
