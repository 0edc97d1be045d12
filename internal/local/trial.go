package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// Trial is one command that is run to its end over a sealed tree, without a server, an
// instance or a network: the run test of a build.
type Trial struct {
	Dir     string        `json:"dir"`     // for its container, emptied before and after; nobody else may use it meanwhile
	Objects string        `json:"objects"` // as Config has it
	Runc    string        `json:"runc"`
	Name    string        `json:"name"` // of the component
	Spec    release.Spec  `json:"spec"`
	Timeout time.Duration `json:"timeout"`

	Keeper []string `json:"-"` // arguments, the program's name first, that make this program call KeepTrial
	Lock   *os.File `json:"-"` // of Dir, held by the keeper too until nothing is left; nil: there is none
}

const (
	trialOutput = 16 << 10        // bytes of a trial's output that are kept
	trialPIDs   = 512             // processes, unless the spec says otherwise
	trialEnd    = 2 * time.Second // to take a container away
)

// alone runs the trial in the keeper, whose namespaces nobody else has: what is mounted
// here, and what runs here, goes with it.
func (t Trial) alone(ctx context.Context) (err error) {
	if err := t.settle(); err != nil {
		return err
	}
	if err := t.clear(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.clear(context.WithoutCancel(ctx))) }()
	root := filepath.Join(t.Dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fault.New(fault.Unavailable, "there is no place for the run test: %w", err)
	}
	if err := seal.Mount(root, t.Objects, t.Spec.Tree); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(root, unix.MNT_DETACH)) }()
	spec, err := t.spec(root)
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(t.Dir, "config.json"), text, 0o600); err != nil {
		return fault.New(fault.Unavailable, "there is no place for the run test: %w", err)
	}
	return t.run(ctx)
}

// settle makes the keeper's surroundings its own, as those of an instance are.
func (t Trial) settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fault.New(fault.Unavailable, "a private mount namespace for the run test: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fault.New(fault.Unavailable, "the run test's own /proc: %w", err)
	}
	if err := shim.Sysctl(shim.NoExecMemory, "2"); err != nil {
		return fault.New(fault.Unavailable, "for the run test: %w", err)
	}
	return nil
}

// spec is the container of an instance with a network of its own that leads nowhere.
func (t Trial) spec(root string) (*specs.Spec, error) {
	if t.Spec.PIDs == 0 {
		t.Spec.PIDs = trialPIDs
	}
	p := &Platform{}
	spec, err := p.runtimeSpec(meta{Instance: rollout.Instance{Component: t.Name, ID: t.unit()}, Spec: t.Spec}, nil)
	if err != nil {
		return nil, err
	}
	spec.Root.Path = root
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	spec.Linux.Sysctl = map[string]string{shim.LowestPort: "0"}
	return spec, nil
}

// unit is the name of the container, and of its control group: one for each Dir.
func (t Trial) unit() string {
	sum := sha256.Sum256([]byte(t.Dir))
	return "trial-" + hex.EncodeToString(sum[:6])
}

func (t Trial) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.Runc, append([]string{"--root", filepath.Join(t.Dir, "runc")}, args...)...)
	cmd.Dir, cmd.Env = t.Dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

func (t Trial) run(ctx context.Context) error {
	one, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var out bytes.Buffer
	cmd := t.command(one, "run", "--bundle", t.Dir, t.unit())
	cmd.Stdout, cmd.Stderr = &ending{&out}, &ending{&out}
	cmd.Cancel = func() error { // the container first, by another process: its end ends runc
		clean, stop := context.WithTimeout(context.WithoutCancel(ctx), trialEnd)
		defer stop()
		_ = t.command(clean, "kill", t.unit(), "KILL").Run() // it may not be there yet, or not any more
		return nil
	}
	cmd.WaitDelay = trialEnd
	err := cmd.Run()
	var f *fault.Error
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case one.Err() != nil:
		f = fault.New(fault.Refused, "the run test did not end within %s", t.Timeout)
	case err == nil:
		return nil
	case errors.As(err, &exit):
		f = fault.New(fault.Refused, "the run test ended with status %d", exit.ExitCode())
	default:
		return fault.New(fault.Unavailable, "the run test cannot be run: %w", err)
	}
	for line := range strings.Lines(strings.ToValidUTF8(out.String(), "?")) {
		f.Detail("| " + strings.TrimRight(line, "\r\n"))
	}
	return f.Detail("command: " + strings.Join(t.Spec.Command, " "))
}

// clear takes away what is left of a trial.
func (t Trial) clear(ctx context.Context) error {
	left, err := os.ReadDir(filepath.Join(t.Dir, "runc"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, one := range left {
		if err := t.command(ctx, "delete", "--force", one.Name()).Run(); err != nil {
			return fault.New(fault.Unavailable, "the container of a run test cannot be taken away: %w", err).At(filepath.Join(t.Dir, "runc", one.Name()))
		}
	}
	return os.RemoveAll(t.Dir)
}

// ending keeps the end of what is written: that is where a program says why it failed.
type ending struct{ to *bytes.Buffer }

func (t *ending) Write(p []byte) (int, error) {
	t.to.Write(p)
	if extra := t.to.Len() - trialOutput; extra > 0 {
		t.to.Next(extra)
	}
	return len(p), nil
}
