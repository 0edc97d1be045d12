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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of the private directory, which is the runtime's bundle, beside Root and HostsFile.
const (
	specFile = "config.json" // leads to the pipe that the specification comes by
	pidFile  = "pid"         // of the program, written by runc
	runcLog  = "runc.log"    // what runc had to say, JSON lines
)

// runc calls the OCI runtime for one container.
type runc struct {
	Birth
	creating *exec.Cmd     // runc create
	spec     *os.File      // where it reads the container's specification
	created  chan struct{} // closed when it has ended
	err      error         // with what; read after created
}

func (r *runc) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", r.RuncRoot, "--log", filepath.Join(r.Private, runcLog), "--log-format", "json"}
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", RuntimeFD), append(global, args...)...)
	cmd.Args[0] = "runc"
	cmd.Dir = r.Private
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=2", "GOGC=off", "GOMEMLIMIT=64MiB"} // it lives for moments
	return cmd
}

// prepare starts runc create ahead of the specification, for which it then waits: by
// the time there is one, the process is up. The program's output goes to stdout and
// stderr. The specification comes by a pipe, and so lies nowhere.
func (r *runc) prepare(ctx context.Context, stdout, stderr *os.File) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close() //nolint:errcheck // runc has its own
	const inRunc = 3   // ExtraFiles begin there
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", inRunc), filepath.Join(r.Private, specFile)); err != nil {
		return errors.Join(err, write.Close())
	}
	cmd := r.command(ctx, "create", "--bundle", r.Private, "--pid-file", filepath.Join(r.Private, pidFile), r.Unit)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = stdout, stderr, []*os.File{read}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, write.Close())
	}
	r.creating, r.spec, r.created = cmd, write, make(chan struct{})
	go func() { r.err = cmd.Wait(); close(r.created) }()
	return nil
}

// create makes the container without starting its program, and gives the process ID
// that will become the program's.
func (r *runc) create(ctx context.Context, spec []byte) (int, error) {
	_, err := r.spec.Write(spec)
	if err = errors.Join(err, r.spec.Close()); err != nil && !errors.Is(err, unix.EPIPE) {
		return 0, &Failure{Step: "create", Text: err.Error()}
	}
	select {
	case <-r.created:
	case <-ctx.Done():
		r.abandon()
		return 0, &Failure{Step: "create", Text: "the runtime does not get done: " + ctx.Err().Error()}
	}
	if r.err != nil {
		return 0, &Failure{Step: "create", Text: r.lastError(r.err)}
	}
	b, err := os.ReadFile(filepath.Join(r.Private, pidFile))
	if err != nil {
		return 0, &Failure{Step: "create", Text: err.Error()}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, &Failure{Step: "create", Text: err.Error()}
	}
	return pid, nil
}

// abandon ends a runc create that is not needed.
func (r *runc) abandon() {
	_ = r.creating.Process.Kill() // it may have ended
	<-r.created
}

// start lets the program begin. What waits in the container is runc init, which
// opens its exec.fifo for writing and writes a byte before it becomes the program;
// runc start does nothing but read that (libcontainer/container_linux.go,
// Container.exec). Reading it here saves a process. Where there is no such file runc
// may do it differently by now, and is asked. gone is closed when the program's
// process has ended.
func (r *runc) start(ctx context.Context, gone <-chan struct{}) error {
	fifo := filepath.Join(r.RuncRoot, r.Unit, "exec.fifo")
	info, err := os.Lstat(fifo)
	if err != nil || info.Mode().Type() != os.ModeNamedPipe {
		if err := r.command(ctx, "start", r.Unit).Run(); err != nil {
			return &Failure{Step: "start", Text: r.lastError(err)}
		}
		return nil
	}
	if err := readFIFO(ctx, fifo, gone); err != nil {
		return &Failure{Step: "start", Text: err.Error()}
	}
	return nil
}

// readFIFO waits until something was written to the fifo, and removes it.
func readFIFO(ctx context.Context, fifo string, gone <-chan struct{}) error {
	read := make(chan error, 1)
	go func() {
		b, err := os.ReadFile(fifo)
		if err == nil && len(b) == 0 {
			err = errors.New("the process ended before it became the program")
		}
		read <- errors.Join(err, os.Remove(fifo))
	}()
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-gone:
		// A reader that still waits for a writer gets one that writes nothing.
		if f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = f.Close() // nothing was written
		}
		return <-read
	}
}

// delete takes away the container of a program that has ended. What is not
// there is deleted already.
func (r *runc) delete(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.RuncRoot, r.Unit)); err != nil {
		return nil
	}
	if err := r.command(ctx, "delete", r.Unit).Run(); err != nil {
		return &Failure{Step: "delete", Text: r.lastError(err)}
	}
	return nil
}

// lastError is the last error in runc's log, or err when it wrote none.
func (r *runc) lastError(err error) string {
	b, readErr := os.ReadFile(filepath.Join(r.Private, runcLog))
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
