package admission

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

// Bounds of one question.
const (
	patience = 10 * time.Second // the first answer of a process takes it some 50 ms
	idle     = 2 * time.Minute  // after which a process ends that nobody asks
)

// Process is the program that evaluates policies. It is started with the first
// question, killed when it does not answer in time, and started anew with the next. It
// ends by itself when nobody holds the other end of its input any more. It is safe for
// concurrent use: questions wait for one another.
type Process struct {
	Program string // its path

	mu    sync.Mutex
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
	timer *time.Timer
}

// Ask asks one question.
func (p *Process) Ask(ctx context.Context, q policy.Question) (policy.Answer, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return policy.Answer{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return policy.Answer{}, err // while others asked
	}
	if p.cmd == nil {
		if err := p.start(); err != nil {
			return policy.Answer{}, fault.New(fault.Unavailable, "the program that judges policies cannot be started: %w", err).At(p.Program).
				Mend("put ashlar-judge beside ashlar; make build makes it")
		}
	}
	p.timer.Stop()
	limit := time.AfterFunc(patience, p.kill(p.cmd))
	stop := context.AfterFunc(ctx, p.kill(p.cmd))
	answer, err := p.exchange(append(text, '\n'))
	late := !limit.Stop()
	stop()
	switch {
	case err == nil:
		p.timer.Reset(idle)
		return answer, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case late:
		err = fault.New(fault.Unavailable, "the policy was not judged within %s", patience)
	default:
		err = fault.New(fault.Unavailable, "the program that judges policies ended amid a question: %w", err).At(p.Program)
	}
	return policy.Answer{}, errors.Join(err, p.end())
}

func (p *Process) start() error {
	cmd := exec.Command(p.Program)
	cmd.Env = []string{"GOMEMLIMIT=256MiB", "GOMAXPROCS=1"}
	cmd.Stderr = io.Discard // and no /dev/null, which need not be there where a proof is verified
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.in, p.out = cmd, in, json.NewDecoder(out)
	p.timer = time.AfterFunc(idle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cmd == cmd {
			_ = p.end() // it is asked nothing: how it ends does not matter
		}
	})
	return nil
}

func (p *Process) kill(cmd *exec.Cmd) func() {
	return func() { _ = cmd.Process.Kill() } // it has ended, then
}

func (p *Process) exchange(line []byte) (policy.Answer, error) {
	var a policy.Answer
	if _, err := p.in.Write(line); err != nil {
		return a, err
	}
	return a, p.out.Decode(&a)
}

// end kills the process and forgets it.
func (p *Process) end() error {
	cmd := p.cmd
	p.cmd = nil
	p.timer.Stop()
	_ = cmd.Process.Kill()
	err := cmd.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil // it was killed
	}
	return err
}

// Close ends the process, if there is one.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	return p.end()
}
