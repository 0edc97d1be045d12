package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func (p *program) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [APP]",
		Short: "Write a commented ashlar.yaml to start from",
		Long:  "Writes a commented ashlar.yaml for an application that is called APP, or like the directory.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			app, err := p.newName(args)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(p.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return fault.New(fault.Conflict, "there is one already, and it stays as it is").At(p.file).Mend("write to another file:  ashlar init --file FILE")
			}
			if err != nil {
				return fault.New(fault.Unavailable, "cannot write the definition: %w", err).At(p.file)
			}
			_, err = f.Write(definition.Template(app))
			if err := errors.Join(err, f.Close()); err != nil {
				return fault.New(fault.Unavailable, "cannot write the definition: %w", err).At(p.file)
			}
			if p.json() {
				p.out.json(map[string]string{"app": app, "file": p.file})
				return nil
			}
			p.out.linef("wrote %s for application %s", p.file, app)
			p.out.linef("next:  ashlar server  in another terminal, then  ashlar deploy")
			return nil
		},
	}
}

// newName is the argument, or a name made of the directory's.
func (p *program) newName(args []string) (string, error) {
	if len(args) > 0 {
		if args[0] != label(args[0]) {
			return "", fault.New(fault.Invalid, "%q cannot be the name of an application", args[0]).
				Detail("a name is 1 to 63 of a-z, 0-9 and -, begins with a letter and does not end with -").Mend("write  ashlar init %s", label(args[0]))
		}
		return args[0], nil
	}
	dir, err := filepath.Abs(filepath.Dir(p.file))
	if err != nil {
		return "", fault.New(fault.Invalid, "cannot find the directory: %w", err).At(p.file)
	}
	return label(filepath.Base(dir)), nil
}

// label makes a DNS label of any text.
func label(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), "-0123456789")
	name = strings.TrimRight(name[:min(len(name), 63)], "-")
	if name == "" {
		return "app"
	}
	return name
}
