package local

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// saying is one thing that the runtime says and what it means to a person. $1 and
// so on are the pattern's groups.
type saying struct {
	pattern string // of a regular expression, compiled only when something failed
	kind    fault.Kind
	what    string
	fix     string
}

var sayings = []saying{
	{
		`exec: "([^"]+)": executable file not found in \$PATH`, fault.Invalid,
		`the command $1 is not in the artifact: no directory of PATH has it`,
		`build the program into the artifact, or write the command with its full path`,
	},
	{
		`exec: "([^"]+)": (?:stat [^:]*: )?no such file or directory`, fault.Invalid,
		`the command $1 is not in the artifact`,
		`build the program into the artifact, or mend the path in command; see  ashlar seal ls`,
	},
	{
		`exec: "([^"]+)": (?:stat [^:]*: )?(?:permission denied|is a directory)`, fault.Invalid,
		`the command $1 is not a program that the user may execute`,
		`give the file an executable mode (0755) in files, or another user`,
	},
	{
		`chdir to cwd \("([^"]+)"\).*(no such file or directory|permission denied|not a directory)`, fault.Invalid,
		`the working directory $1 cannot be entered: $2`,
		`mend workDir, or build the directory into the artifact`,
	},
	{
		`container init: mkdir ([^:]+): read-only file system`, fault.Invalid,
		`the working directory $1 is not in the artifact`,
		`mend workDir, or build the directory into the artifact`,
	},
	{
		`error mounting "tmpfs" to rootfs at "([^"]+)".*(?:read-only file system|no such file or directory|not a directory)`, fault.Invalid,
		`the tree has no directory $1 to mount a tmpfs on`,
		`build the release again with  ashlar build`,
	},
	{
		`error mounting "[^"]+" to rootfs at "(/proc|/sys|/dev)"`, fault.Invalid,
		`the tree has no directory $1 to mount on`,
		`build the release again with  ashlar build`,
	},
	{
		`unknown capability "?([A-Z_]+)`, fault.Invalid,
		`capability $1 is not known to this kernel`, `mend capabilities`,
	},
	{
		`seccomp is not supported|config provided but seccomp not supported`, fault.Unavailable,
		`the runtime was built without seccomp`, `build it with  make build`,
	},
	{
		`no space left on device`, fault.Unavailable,
		`no space left on a device while making the instance`, `free space, see  ashlar gc`,
	},
}

// explain makes a fault of what kept an instance from starting.
func (p *Platform) explain(i *instance, err error) error {
	at := i.meta.Instance.Component + " " + i.meta.Instance.ID
	var f *shim.Failure
	if !errors.As(err, &f) {
		if errors.Is(err, shim.ErrGone) {
			return fault.New(fault.Internal, "the instance ended while it was being started").At(at).
				Detail(append(lastText(filepath.Join(i.dir(), shim.ErrorFile)), p.lastOutput(i)...)...)
		}
		return err
	}
	if f.Fault != nil {
		out := *f.Fault
		return out.Detail("while mounting the root of " + at)
	}
	for _, s := range sayings {
		pattern := regexp.MustCompile(s.pattern)
		if m := pattern.FindStringSubmatchIndex(f.Text); m != nil {
			what := string(pattern.ExpandString(nil, s.what, f.Text, m))
			return &fault.Error{Kind: s.kind, What: what, Where: at, Details: []string{f.Text}, Fix: s.fix, Err: err}
		}
	}
	kind := fault.Internal
	if f.Step == "mount" || f.Step == "log" {
		kind = fault.Unavailable
	}
	what := map[string]string{
		"mount":  "the instance's sealed root cannot be mounted",
		"create": "the runtime cannot make the instance",
		"start":  "the instance cannot be started",
		"log":    "the instance's output file cannot be opened",
	}[f.Step]
	return &fault.Error{Kind: kind, What: what, Where: at, Details: []string{f.Text}, Err: err}
}

func (p *Platform) lastOutput(i *instance) []string {
	return lastLines(p.logFile(i.meta.Key, i.meta.Instance.ID), observedLines)
}

// lastText gives the last lines of a small text file.
func lastText(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[max(0, len(lines)-observedLines):]
}
