package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// Trial is one command that is run to its end over a sealed tree, without a server, an
// instance or a network: the run test of a build.
type Trial struct {
	Dir     string // for its container, emptied before and after; nobody else may use it meanwhile
	Objects string // as Config has it
	Runc    string
	Name    string // of the component
	Spec    release.Spec
	Timeout time.Duration
}

const (
	trialOutput = 16 << 10        // bytes of a trial's output that are kept
	trialPIDs   = 512             // processes, unless the spec says otherwise
	trialEnd    = 2 * time.Second // to take a container away
)

// Run gives the command's output; a fault of kind Refused says how it failed. The tree
// is mounted in a mount namespace that goes with this call. The container of a call
// that was killed is taken away by the next one with the same Dir.
func (t Trial) Run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Unavailable, "the run test needs root: it runs in a container").
			Mend("build as root, or leave the test to the deploy:  ashlar build --untested")
	}
	if err := executable(t.Runc); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, and the namespace with it
		done <- t.inNamespace(ctx)
	}()
	return <-done
}

func (t Trial) inNamespace(ctx context.Context) (err error) {
	if err := t.clear(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.clear(context.WithoutCancel(ctx))) }()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fault.New(fault.Unavailable, "a mount namespace for the run test: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fault.New(fault.Unavailable, "a private mount namespace for the run test: %w", err)
	}
	root := filepath.Join(t.Dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
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
		return err
	}
	return t.run(ctx)
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
	return spec, nil
}

func (t Trial) unit() string { return fmt.Sprintf("trial-%d", os.Getpid()) }

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
