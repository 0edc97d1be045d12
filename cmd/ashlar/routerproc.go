package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/router"
)

// How long a router may take.
const (
	routerStart  = 10 * time.Second // to answer after it was started
	routerEnd    = 15 * time.Second // to end after it was asked to
	routerPoll   = 10 * time.Millisecond
	routerPause  = time.Second // between attempts to start one that does not come up
	maxRouterLog = 8 << 20     // bytes, after which router.log is put aside
)

// routerProcess keeps a router running, a process of its own that outlives the
// server: it is started when none answers, again when it has died, and handed over
// to one of this version when it is of another.
type routerProcess struct {
	runDir, logFile string
	client          *router.Client
	version         string // that the router is to have
	program         string // empty: this one
	acme            string // directory that keeps what was got by ACME
	metrics         string // loopback address for Prometheus; empty: none
	log             *slog.Logger
	started         func(pid int) // called after a router was started
}

// ensure returns once a router of this version answers, starting one if need be.
// One of another version is handed over; where that fails it goes on.
func (r *routerProcess) ensure(ctx context.Context) (pid int, err error) {
	h, err := r.client.Health(ctx)
	if err == nil && h.Version == r.version {
		return h.PID, nil
	}
	there := err == nil
	next, err := r.launch(ctx, h.PID, there)
	if err == nil {
		r.log.Info("router started", "pid", next.PID, "version", next.Version, "before", h.PID)
		if r.started != nil {
			r.started(next.PID)
		}
		return next.PID, nil
	}
	if there {
		r.log.Warn("the router that runs is of another version and was not replaced, it goes on", "pid", h.PID, "its", h.Version, "ours", r.version, "err", err)
		return h.PID, nil
	}
	return 0, err
}

// launch starts a router and waits until it, and not the process before, answers.
func (r *routerProcess) launch(ctx context.Context, before int, takeOver bool) (router.Health, error) {
	exited, err := r.start(takeOver)
	if err != nil {
		return router.Health{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, routerStart)
	defer cancel()
	for {
		if h, err := r.client.Health(ctx); err == nil && h.PID != before {
			return h, nil
		}
		select {
		case <-ctx.Done():
		case <-exited:
		case <-time.After(routerPoll):
			continue
		}
		if h, err := r.client.Health(context.WithoutCancel(ctx)); err == nil && h.PID != before {
			return h, nil // another server was faster
		}
		return router.Health{}, fault.New(fault.Unavailable, "the router does not come up").At(r.logFile).Mend("see why:  tail %s", r.logFile)
	}
}

// start runs a router in a session of its own, so that no signal to the server's
// terminal or process group reaches it. exited is closed when it ends.
func (r *routerProcess) start(takeOver bool) (exited <-chan struct{}, err error) {
	program := r.program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return nil, fault.New(fault.Internal, "find this program: %w", err)
		}
	}
	out, err := openLog(r.logFile)
	if err != nil {
		return nil, err
	}
	args := []string{"router", "--run", r.runDir, "--acme", r.acme, "--metrics", r.metrics}
	if takeOver {
		args = append(args, "--take-over")
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, fault.New(fault.Unavailable, "start the router: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() //nolint:errcheck // only so that it leaves no zombie; keep sees its end
	}()
	return ended, nil
}

func openLog(path string) (*os.File, error) {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if info, statErr := os.Stat(path); err == nil && statErr == nil && info.Size() > maxRouterLog {
		err = os.Rename(path, path+".1")
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open the router's log: %w", err).At(path)
	}
	return f, nil
}

// keep starts the router again whenever it dies, until ctx ends. restarted is
// called each time another router answers.
func (r *routerProcess) keep(ctx context.Context, pid int, restarted func()) {
	for ctx.Err() == nil {
		if err := awaitEnd(ctx, pid); err != nil {
			r.log.Warn("cannot watch the router", "pid", pid, "err", err)
			_ = pause(ctx, routerPause) // its end is looked at below
		}
		if ctx.Err() != nil {
			return
		}
		before := pid
		next, err := r.ensure(ctx)
		if err != nil {
			r.log.Error("the router is not running", "err", err)
			_ = pause(ctx, routerPause) // its end is looked at above
			continue
		}
		if pid = next; pid != before {
			r.log.Warn("the router had died and runs again", "before", before, "pid", pid)
			restarted()
		}
	}
}

// end asks the router to end and waits for it.
func (r *routerProcess) end(ctx context.Context) error {
	h, err := r.client.Health(ctx)
	if err != nil {
		return nil // there is none
	}
	if err := syscall.Kill(h.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fault.New(fault.Internal, "end the router: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, routerEnd)
	defer cancel()
	for _, pid := range append(h.Before, h.PID) {
		if err := awaitEnd(ctx, pid); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return fault.New(fault.Unavailable, "the router (process %d) does not end", h.PID)
	}
	return nil
}

// awaitEnd waits until a process, of which this one need not be the parent, has
// ended, or ctx has: pidfd_open(2).
func awaitEnd(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "watch process %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written to it
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fault.New(fault.Internal, "watch process %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
	}
	return nil
}
