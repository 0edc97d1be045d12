package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func (p *program) doctorCommand() *cobra.Command {
	var q DoctorRequest
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine can and cannot guarantee, and how to mend it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			q.Dir = dir
			checks := p.parts.Doctor(cmd.Context(), q)
			c, err := p.client()
			if err != nil {
				return err
			}
			checks = append(checks, p.serverChecks(cmd, c)...)
			if p.json() {
				p.out.json(checks)
				return nil
			}
			p.showChecks(checks)
			return nil
		},
	}
	programFlags(cmd, &q.Runc, &q.Shim)
	return cmd
}

func (p *program) serverChecks(cmd *cobra.Command, c *api.Client) []api.Check {
	checks, err := c.Doctor(cmd.Context())
	if err != nil {
		f := fault.Of(err)
		return []api.Check{{Name: "server", Detail: f.What, Fix: f.Fix}}
	}
	return checks
}

func (p *program) showChecks(checks []api.Check) {
	wide := 0
	for _, c := range checks {
		wide = max(wide, len(c.Name))
	}
	for _, c := range checks {
		mark := p.out.paint(green, "yes")
		if !c.OK {
			mark = p.out.paint(yellow, "no ")
		}
		p.out.linef("%s  %-*s  %s", mark, wide, c.Name, c.Detail)
		if !c.OK && c.Fix != "" {
			p.out.linef("     %-*s  %s %s", wide, "", p.out.paint(bold, "fix:"), c.Fix)
		}
	}
	if !slices.ContainsFunc(checks, func(c api.Check) bool { return !c.OK }) {
		p.out.linef("everything is guaranteed here")
	}
}
