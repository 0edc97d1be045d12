package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a command that says whether the instance is healthy. It runs in a twin of
// the instance: a container of its own over the same sealed root and secrets, in the
// network of the instance, without its processes, tmpfs and volumes.
type Probe struct {
	Spec    json.RawMessage `json:"spec"`    // the twin, as Config.Spec is the instance
	Timeout time.Duration   `json:"timeout"` // after which it is killed
}

// TwinUnit is the twin's name to the runtime.
func TwinUnit(unit string) string { return unit + "-twin" }

const (
	twinDir      = "twin"                 // its bundle, within the private directory
	twinOutput   = 4 << 10                // bytes of its output that are looked at
	twinPatience = 100 * time.Millisecond // for its output, once it has ended
)

// probe runs the twin beside everything else; one at a time.
func (s *shim) probe(ctx context.Context, o order) {
	if o.Probe == nil || s.said.State != Running {
		s.control.refuse(o, &Failure{Step: "probe", Text: "there is no program to probe"})
		return
	}
	select {
	case s.twin <- struct{}{}:
	default:
		s.control.refuse(o, &Failure{Step: "probe", Text: "another probe is under way"})
		return
	}
	go func() {
		err := s.runc.twin(ctx, *o.Probe)
		<-s.twin
		if err != nil {
			s.control.refuse(o, &Failure{Step: "probe", Text: err.Error()})
			return
		}
		s.control.refuse(o, nil) // nothing is wrong
	}()
}

// twin runs a probe to its end. Its error is what a person reads.
func (r *runc) twin(ctx context.Context, p Probe) error {
	bundle := filepath.Join(r.Private, twinDir)
	if err := os.Mkdir(bundle, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, specFile), p.Spec, 0o600); err != nil {
		return err
	}
	unit := TwinUnit(r.Unit)
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var out bytes.Buffer
	cmd := r.command(ctx, "run", "--bundle", bundle, unit)
	cmd.Stdout, cmd.Stderr = &bounded{&out}, &bounded{&out}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // runc hands it to the twin; what is left is taken away below
	cmd.WaitDelay = twinPatience
	err := cmd.Run()
	if _, statErr := os.Stat(filepath.Join(r.RuncRoot, unit)); statErr == nil {
		clean, stop := context.WithTimeout(context.WithoutCancel(ctx), runtimeLimit)
		defer stop()
		if err := r.command(clean, "delete", "--force", unit).Run(); err != nil {
			return fmt.Errorf("take the probe's twin away: %w", err)
		}
	}
	return twinVerdict(ctx, err, out.String(), p.Timeout)
}

func twinVerdict(ctx context.Context, err error, out string, timeout time.Duration) error {
	last := out
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) > 0 {
		last = strings.ToValidUTF8(lines[len(lines)-1], "")
	}
	if last != "" {
		last = ": " + last
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the command did not end within %s%s", timeout, last)
	case errors.As(err, &exit):
		return fmt.Errorf("the command exited with status %d%s", exit.ExitCode(), last)
	default:
		return fmt.Errorf("the command could not be run: %w%s", err, last)
	}
}

// bounded keeps the beginning of what is written.
type bounded struct{ to *bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	room := max(0, twinOutput-b.to.Len())
	b.to.Write(p[:min(room, len(p))])
	return len(p), nil
}
