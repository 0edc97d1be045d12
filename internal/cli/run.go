package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// DefaultDir is the state directory when nothing else is said.
const DefaultDir = "/var/lib/ashlar"

// interrupted is the exit status after Ctrl-C: 128 and SIGINT.
const interrupted = 130

// program is what all commands share.
type program struct {
	parts Parts
	in    io.Reader
	out   *printer // results
	err   *printer // progress, questions, faults

	dir, file, app, output string
}

// Run runs one command and gives the exit status.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, parts Parts) int {
	p := &program{parts: parts, in: stdin, out: newPrinter(stdout), err: newPrinter(stderr)}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var detached *detachedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &detached):
		return interrupted
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		p.err.linef("interrupted")
		return interrupted
	}
	return p.fail(err)
}

// fail shows an error and gives its exit status.
func (p *program) fail(err error) int {
	list := faultsOf(err)
	if p.json() {
		p.err.json(map[string]any{"faults": list})
	} else {
		p.err.faults(list)
	}
	return list[0].Kind.ExitCode()
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ashlar",
		Short: "Immutable infrastructure: build once, lay beside, switch, retire",
		Long: "Ashlar builds an application into sealed, content-addressed artifacts, runs the new release beside\n" +
			"the old, moves the traffic when it has proven itself, and retires the old. Nothing that was started\n" +
			"is ever changed; rolling back is laying the previous release again.",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			// cobra looks at these after this, and its errors would be taken for bugs of ours.
			if err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
				return wrong(cmd, err)
			}
			if p.output != "text" && p.output != "json" {
				return fault.New(fault.Invalid, "output %q is not known", p.output).Detail("known: text, json").Mend("write  --output json")
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return wrong(cmd, err) })
	flags := root.PersistentFlags()
	flags.StringVar(&p.dir, "dir", defaultDir(), "state directory (environment variable ASHLAR_DIR)")
	flags.StringVar(&p.app, "app", "", "application, where no ashlar.yaml is at hand")
	flags.StringVarP(&p.output, "output", "o", "text", "text or json")
	fixed(root, "output", "text", "json")

	root.AddGroup(&cobra.Group{ID: "app", Title: "An application:"}, &cobra.Group{ID: "look", Title: "Looking:"}, &cobra.Group{ID: "trust", Title: "Trusting:"},
		&cobra.Group{ID: "machine", Title: "A machine:"})
	p.group(root, "app", p.initCommand(), p.buildCommand(), p.planCommand(), p.deployCommand(), p.rollbackCommand(),
		p.rolloutCommand(), p.promoteCommand(), p.quarantineCommand(), p.downCommand(), p.secretCommand())
	p.group(root, "look", p.statusCommand(), p.whyCommand(), p.historyCommand(), p.logsCommand(), p.logCommand(), p.explainCommand(),
		p.sbomCommand(), p.provenanceCommand(), p.sealCommand())
	p.group(root, "trust", p.verifyCommand(), p.proofCommand(), p.rebuildCommand(), p.exportCommand(), p.keyCommand(), p.trustCommand(), p.statementCommand(), p.policyCommand(), p.approveCommand())
	p.group(root, "machine", p.serverCommand(), p.routerCommand(), p.registryCommand(), p.gcCommand(), p.doctorCommand(), p.simulateCommand())
	p.group(root, "app", p.pushCommand(), p.pullCommand())
	root.AddCommand(p.schemaCommand(), p.versionCommand(), p.trialCommand())
	for _, cmd := range root.Commands() {
		p.addFile(cmd)
	}
	completeArguments(root)
	wrapArgs(root)
	return root
}

// withoutFile are the commands that look at no definition, with those below them.
var withoutFile = []string{"key", "trust", "statement", "server", "router", "registry", "gc", "doctor", "simulate", "schema", "version",
	"log verify", "log prove", "log consistency", "log check", "log key", "log renew"}

// addFile adds --file, which is -f wherever that does not mean --follow.
func (p *program) addFile(cmd *cobra.Command) {
	if slices.Contains(withoutFile, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")) {
		return
	}
	letter := "f"
	if cmd.Flags().ShorthandLookup("f") != nil {
		letter = ""
	}
	cmd.Flags().StringVarP(&p.file, "file", letter, "ashlar.yaml", "definition of the application")
	for _, sub := range cmd.Commands() {
		p.addFile(sub)
	}
}

func (p *program) group(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
	}
	root.AddCommand(commands...)
}

// wrapArgs makes faults of cobra's complaints about arguments, all the way down.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var f *fault.Error
			if err == nil || errors.As(err, &f) {
				return err
			}
			if near := nearest(cmd, args); near != "" {
				return wrong(cmd, err).Mend("write  %s", near)
			}
			return wrong(cmd, err)
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// wrong is the fault of a command line that cobra complains about.
func wrong(cmd *cobra.Command, err error) *fault.Error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	f := fault.New(fault.Invalid, "%s", text).Mend("see  %s --help", cmd.CommandPath())
	if !cmd.HasSubCommands() {
		f.Detail("usage: " + cmd.UseLine())
	}
	return f
}

// nearest is the command that was probably meant; empty: none is near.
func nearest(cmd *cobra.Command, args []string) string {
	if len(args) == 0 || !cmd.HasSubCommands() {
		return ""
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return cmd.CommandPath() + " " + near[0]
	}
	return ""
}

func defaultDir() string {
	if dir := os.Getenv("ASHLAR_DIR"); dir != "" {
		return dir
	}
	return DefaultDir
}

// RunDir is the run directory of a state directory.
func RunDir(dir string) string {
	if dir == DefaultDir {
		return "/run/ashlar"
	}
	return filepath.Join(dir, "run")
}

func (p *program) json() bool { return p.output == "json" }

// stateDir is the state directory as an absolute path.
func (p *program) stateDir() (string, error) {
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return "", fault.New(fault.Invalid, "the state directory cannot be found: %w", err).At(p.dir)
	}
	return dir, nil
}

// client talks to the server of the state directory.
func (p *program) client() (*api.Client, error) {
	dir, err := p.stateDir()
	if err != nil {
		return nil, err
	}
	return api.Dial(RunDir(dir), dir), nil
}
