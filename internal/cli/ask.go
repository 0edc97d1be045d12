package cli

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// question is whether a person must agree.
type question struct{ yes bool }

func (q *question) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&q.yes, "yes", "y", false, "do not ask")
}

// confirm asks on a terminal; without one, and without --yes, it refuses.
func (p *program) confirm(ctx context.Context, q question, text string) error {
	if q.yes {
		return nil
	}
	if p.json() {
		return fault.New(fault.Refused, "nobody is asked with --output json").Mend("agree beforehand:  --yes")
	}
	in, ok := p.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fault.New(fault.Refused, "nobody is there to agree: this is not a terminal").Mend("agree beforehand:  --yes")
	}
	p.err.text(text + " [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && err != io.EOF {
			line = ""
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		p.err.linef("")
		return ctx.Err()
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
	}
	return fault.New(fault.Refused, "not agreed: nothing was changed")
}
