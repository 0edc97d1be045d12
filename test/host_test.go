package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/load"
)

// patience is how long the suite waits for what should take a moment.
const patience = 30 * time.Second

// errNotYet is what a look says that has nothing better to say.
var errNotYet = errors.New("not yet")

// host is one state directory with its server. It ends with the test.
type host struct {
	t      *testing.T
	dir    string
	client *api.Client
	server *process // nil: none runs
	flags  []string // of the server
	said   *text    // by all servers of the test
}

// newHost starts a server in a directory of its own.
func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ash") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return newHostIn(t, dir)
}

func newHostIn(t *testing.T, dir string) *host {
	t.Helper()
	h := &host{t: t, dir: dir, client: api.Dial(filepath.Join(dir, "run"), dir), said: &text{}}
	t.Cleanup(h.end)
	h.start()
	return h
}

// start starts the server and waits until it answers.
func (h *host) start() {
	h.t.Helper()
	from := h.said.len()
	h.server = h.spawn(append([]string{"server"}, h.flags...)...)
	h.await("the server to answer", func() error {
		if h.server.ended() {
			h.t.Fatalf("the server ended: %v\n%s", h.server.err, h.said.from(from))
		}
		v, err := h.client.Version(h.t.Context())
		if err == nil && v.PID != h.server.cmd.Process.Pid {
			return fmt.Errorf("process %d answers", v.PID)
		}
		return err
	})
}

// kill ends the server as a power cut would, and nothing else.
func (h *host) kill() {
	h.t.Helper()
	if err := h.server.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	<-h.server.done
	h.server = nil
}

// stop asks the server to end.
func (h *host) stop() {
	h.t.Helper()
	if err := h.server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	select {
	case <-h.server.done:
	case <-time.After(patience):
		h.t.Fatal("the server does not end on SIGTERM")
	}
	if h.server.err != nil {
		h.t.Errorf("the server ended: %v", h.server.err)
	}
	h.server = nil
}

// spawn starts one of the program's commands, whose output goes to h.said.
func (h *host) spawn(args ...string) *process {
	h.t.Helper()
	return h.spawnProgram("ashlar", args...)
}

func (h *host) spawnProgram(name string, args ...string) *process {
	h.t.Helper()
	p := &process{cmd: exec.Command(filepath.Join(bin, name), args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "ASHLAR_DIR="+h.dir)
	p.cmd.Dir = h.dir
	p.cmd.Stdout, p.cmd.Stderr = h.said, h.said
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// process is a program that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// text collects output. It is safe for concurrent use.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Len()
}

func (x *text) from(at int) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.b.Bytes()[at:])
}

// await looks again and again until look has nothing to complain about.
func (h *host) await(what string, look func() error) {
	h.t.Helper()
	if err := awaitFor(h.t.Context(), patience, look); err != nil {
		h.t.Fatalf("waiting for %s: %v", what, err)
	}
}

func awaitFor(ctx context.Context, limit time.Duration, look func() error) error {
	deadline := time.After(limit)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-deadline:
			return err
		case <-again.C:
		}
	}
}

// end takes everything down as a user would, and says what is left.
func (h *host) end() {
	if h.server != nil && h.server.ended() {
		h.t.Errorf("the server ended by itself: %v", h.server.err)
		h.server = nil
	}
	if h.server == nil {
		h.server = h.spawn(append([]string{"server"}, h.flags...)...)
	}
	err := awaitFor(context.Background(), patience, func() error { _, err := h.client.Version(context.Background()); return err })
	was := h.traces()
	if err == nil {
		err = h.down()
	}
	if err != nil {
		h.t.Error(err)
		h.abort()
	}
	<-h.server.done
	if h.server.err != nil {
		h.t.Errorf("the server ended: %v", h.server.err)
	}
	var left []string
	_ = awaitFor(context.Background(), patience/3, func() error {
		if left = was.left(h); len(left) > 0 {
			return errors.New("something is left")
		}
		return nil
	})
	for _, l := range left {
		h.t.Errorf("left behind: %s", l)
	}
	if h.t.Failed() {
		h.t.Logf("what the servers said:\n%s", h.said.from(0))
		b, _ := os.ReadFile(filepath.Join(h.dir, "logs", "router.log")) // it may not exist
		h.t.Logf("what the router said:\n%s", b)
	}
}

func (h *host) down() error {
	cmd := exec.Command(filepath.Join(bin, "ashlar"), "--dir", h.dir, "down", "--all", "--yes")
	cmd.Dir = h.dir
	timer := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ashlar down --all: %w\n%s", err, out)
	}
	return nil
}

// abort ends the processes of a host that cannot be taken down, so that the next
// test finds a quiet machine.
func (h *host) abort() {
	_ = h.server.cmd.Process.Kill() // it may have ended
	for pid := range h.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // likewise
	}
}

// freeAddress is an address of the loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	addr, err := load.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// lines splits output.
func lines(s string) []string {
	return strings.Split(strings.TrimRight(s, "\n"), "\n")
}
