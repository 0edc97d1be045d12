package cli

import (
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Version string       `json:"version"`
				Server  *api.Version `json:"server,omitempty"`
			}{Version: p.parts.Version}
			if c, err := p.client(); err == nil {
				if v, err := c.Version(cmd.Context()); err == nil {
					out.Server = &v
				}
			}
			if p.json() {
				p.out.json(out)
				return nil
			}
			p.out.linef("ashlar %s", out.Version)
			if s := out.Server; s != nil {
				p.out.linef("server %s, process %d, %s of memory, state in %s", s.Version, s.PID, size(s.RSS), s.Dir)
			}
			return nil
		},
	}
}
