package cli

import "github.com/spf13/cobra"

// TrialCommand is the hidden command of the process that a run test is run by. Nobody
// types it: the build starts it, tells it what to do on its input, and reads its verdict.
const TrialCommand = "trial"

func (p *program) trialCommand() *cobra.Command {
	return &cobra.Command{
		Use: TrialCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.parts.Trial(cmd.Context(), p.in, p.out.w) },
	}
}
