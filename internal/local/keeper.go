package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A trial is run by a keeper: a process of its own, this program again, the first of a
// process namespace. It takes everything away when the trial is over, and as well when
// who asked for it is gone: interrupted, or killed. When the keeper is killed itself,
// the kernel ends what it started; the files that then are left, and the empty control
// group, go with the next trial in the same Dir.

// trialVerdict is what a keeper says in the end.
type trialVerdict struct {
	Fault *fault.Error `json:"fault"` // nil: the test has passed
}

// Run runs the trial to its end. A fault of kind Refused says how the command failed,
// with the end of its output.
func (t Trial) Run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Unavailable, "the run test needs root: it runs in a container").
			Mend("build as root, or leave the test to the deploy:  ashlar build --untested")
	}
	if err := executable(t.Runc); err != nil {
		return err
	}
	order, err := json.Marshal(t)
	if err != nil {
		return err
	}
	var said, complained bytes.Buffer
	cmd := exec.Command("/proc/self/exe", t.Keeper[1:]...)
	cmd.Args[0], cmd.Dir = t.Keeper[0], "/"
	cmd.Stdout, cmd.Stderr = &said, &complained
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	if t.Lock != nil {
		cmd.ExtraFiles = []*os.File{t.Lock}
	}
	life, err := cmd.StdinPipe() // whose end tells the keeper that nobody waits any more
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fault.New(fault.Unavailable, "the process of the run test cannot be started: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = life.Close() })()
	_, sent := life.Write(order)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var v trialVerdict
	if err != nil || sent != nil || json.Unmarshal(said.Bytes(), &v) != nil {
		return fault.New(fault.Unavailable, "the process of the run test ended before the test: %v", cmd.ProcessState).
			Detail(strings.TrimSpace(complained.String())).Mend("run it again")
	}
	if v.Fault != nil {
		return v.Fault
	}
	return nil
}

// trialLockFD is where a keeper has Trial.Lock.
const trialLockFD = 3

// KeepTrial is the life of a keeper: in has the trial, and ends when nobody waits for it
// any more; out gets the verdict.
func KeepTrial(ctx context.Context, in io.Reader, out io.Writer) error {
	if os.Getpid() != 1 { // it would mount over the host's /proc
		return fault.New(fault.Invalid, "this command is started by  ashlar build")
	}
	unix.CloseOnExec(trialLockFD)
	var t Trial
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("reading what is to be tried: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // its end is all that matters
		cancel()
	}()
	return json.NewEncoder(out).Encode(trialVerdict{fault.Of(t.alone(ctx))})
}
