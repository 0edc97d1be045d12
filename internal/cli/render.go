package cli

// The rules of the user interface. Whoever adds a command keeps them.
//
//  1. What was asked for goes to standard output; progress of builds, questions
//     and faults go to standard error.
//  2. With --output json standard output holds exactly one JSON document, or JSON
//     lines where the answer is a stream, and nothing else; faults are JSON on
//     standard error.
//  3. Colour only on a terminal, never with NO_COLOR set or TERM=dumb, and never
//     as the only bearer of a meaning.
//  4. Only a terminal is redrawn, and only the block that a command owns. In a
//     pipe the same facts are plain lines, one a fact, in the order they happened.
//  5. A fault says where, what, then details, then how to mend it, naming the
//     command or the text. The exit status comes from its kind (package fault).
//  6. Digests are shown with 12 digits, times as the reader's local time, measured
//     times with the precision that was measured; JSON has everything in full.
//  7. A question is asked only on a terminal, and its default changes nothing.
//  8. The words are those of ashlar.yaml and the record: release, instance,
//     environment, rollout, live, put back.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/term"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// printer writes to one stream.
type printer struct {
	w        io.Writer
	terminal bool
	colour   bool
	drawn    int // lines of the block that is redrawn
}

func newPrinter(w io.Writer) *printer {
	p := &printer{w: w}
	if f, ok := w.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	p.colour = p.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return p
}

// width is the terminal's, in columns.
func (p *printer) width() int {
	if f, ok := p.w.(*os.File); ok && p.terminal {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			return w
		}
	}
	return 80
}

// linef writes a line. A reader that went away is no reason to stop a deploy, so
// errors of writing are dropped here, for all commands.
func (p *printer) linef(format string, args ...any) {
	fmt.Fprintf(p.w, format+"\n", args...) //nolint:errcheck // see above
}

func (p *printer) text(s string) { io.WriteString(p.w, s) } //nolint:errcheck // see linef

// json writes a document.
func (p *printer) json(v any) {
	enc := json.NewEncoder(p.w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	enc.Encode(v) //nolint:errcheck // see linef
}

// jsonLine writes one document on one line.
func (p *printer) jsonLine(v any) {
	enc := json.NewEncoder(p.w)
	enc.SetEscapeHTML(false)
	enc.Encode(v) //nolint:errcheck // see linef
}

// table writes rows of cells, the first of which is the head.
func (p *printer) table(rows [][]string) {
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(row, "\t"), "\t ")) //nolint:errcheck // see linef
	}
	tw.Flush() //nolint:errcheck // see linef
}

// redraw replaces the block that it drew last.
func (p *printer) redraw(lines []string) {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	width := p.width()
	for _, l := range lines {
		b.WriteString("\r\x1b[K" + clip(l, width) + "\n")
	}
	for range p.drawn - len(lines) {
		b.WriteString("\r\x1b[K\n")
	}
	p.drawn = max(p.drawn, len(lines))
	p.text(b.String())
}

// settle leaves the block as it is.
func (p *printer) settle() { p.drawn = 0 }

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	faint  = "2"
)

func (p *printer) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// faults shows what went wrong, as fault.Error.Error spells it.
func (p *printer) faults(list fault.List) {
	for _, f := range list {
		head := f.What
		if f.Where != "" {
			head = f.Where + ": " + head
		}
		p.linef("%s", p.paint(red, head))
		for _, d := range f.Details {
			p.linef("  %s", d)
		}
		if f.Fix != "" {
			p.linef("  %s   %s", p.paint(bold, "fix:"), f.Fix)
		}
	}
}

// faultsOf gives every fault of an error, at least one.
func faultsOf(err error) fault.List {
	var list fault.List
	if errors.As(err, &list) && len(list) > 0 {
		return list
	}
	return fault.List{fault.Of(err)}
}

func number(n int) string { return strconv.Itoa(n) }

func short(d digest.Digest) string {
	const n = len("sha256:") + 12
	if len(d) <= n {
		return string(d)
	}
	return string(d[:n])
}

// seconds shows a measured time.
func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// age shows how long ago something was.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size shows an amount of bytes.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// count gives "1 instance", "2 instances".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// count64 is count for what has a plural of its own.
func count64(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(int(n)) + " " + more
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
