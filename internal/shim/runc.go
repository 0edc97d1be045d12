package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// runc calls the OCI runtime for one container.
type runc struct {
	path, root, dir, id string
}

func (r runc) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", r.root, "--log", filepath.Join(r.dir, RuncLog), "--log-format", "json"}
	cmd := exec.CommandContext(ctx, r.path, append(global, args...)...)
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=2"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// create makes the container without starting its program, whose output goes to
// stdout and stderr, and gives the process ID that will become the program's.
func (r runc) create(ctx context.Context, stdout, stderr *os.File) (int, error) {
	pidFile := filepath.Join(r.dir, PIDFile)
	cmd := r.command(ctx, "create", "--bundle", r.dir, "--pid-file", pidFile, r.id)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return 0, &Failure{Step: "create", Text: r.lastError(err)}
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, &Failure{Step: "create", Text: err.Error()}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, &Failure{Step: "create", Text: err.Error()}
	}
	return pid, nil
}

func (r runc) start(ctx context.Context) error {
	if err := r.command(ctx, "start", r.id).Run(); err != nil {
		return &Failure{Step: "start", Text: r.lastError(err)}
	}
	return nil
}

// delete takes away the container of a program that has ended. What is not
// there is deleted already.
func (r runc) delete(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.root, r.id)); err != nil {
		return nil
	}
	if err := r.command(ctx, "delete", r.id).Run(); err != nil {
		return &Failure{Step: "delete", Text: r.lastError(err)}
	}
	return nil
}

// lastError is the last error in runc's log, or err when it wrote none.
func (r runc) lastError(err error) string {
	b, readErr := os.ReadFile(filepath.Join(r.dir, RuncLog))
	if readErr != nil {
		return err.Error()
	}
	text := err.Error()
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			text = entry.Msg
		}
	}
	return text
}
