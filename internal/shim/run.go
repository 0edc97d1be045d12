package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The longest that a step of the runtime may take.
const (
	runtimeLimit = time.Minute
	drainLimit   = 2 * time.Second // after the program's end, until its output has ended
)

// shim is one run. Its fields belong to the goroutine of Run.
type shim struct {
	dir     string
	cfg     Config
	runc    runc
	control *control
	output  *output
	copies  sync.WaitGroup
	readers []*os.File

	said   Message
	memfd  chan error              // what came of forbidMemfdExec
	ended  chan syscall.WaitStatus // the program's end
	events string                  // see memoryEvents
	grace  *time.Timer             // set by a stop
	failed error                   // why the program cannot be started any more
}

// Run is the whole life of the shim of the instance directory dir. It must be
// called from a locked main thread: the runtime's processes die with it. It
// returns when the instance is over and nothing of it is left but files in dir.
func Run(ctx context.Context, dir string) error {
	first, err := inherit(dir)
	if err != nil {
		return err
	}
	s := &shim{dir: dir, control: newControl(), said: Message{State: Creating}}
	listener, err := s.control.listen(dir)
	if err != nil {
		return err
	}
	go s.control.serveFirst(s.control.greet(first))
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)

	if err := s.create(ctx); err != nil {
		var f *Failure
		if !errors.As(err, &f) {
			f = &Failure{Step: "create", Text: err.Error()}
		}
		err = s.runc.delete(ctx)
		s.say(Message{State: Failed, Error: f}, nil)
		return errors.Join(err, listener.Close())
	}
	debug.FreeOSMemory() // nothing of the beginning is needed again
	status := s.attend(ctx, terms)
	return errors.Join(s.finish(ctx, status), listener.Close())
}

// inherit takes over the descriptors that the shim was born with.
func inherit(dir string) (net.Conn, error) {
	for _, fd := range []int{FirstFD, LockFD} {
		unix.CloseOnExec(fd)
	}
	if _, err := unix.Pwrite(LockFD, fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return nil, fmt.Errorf("write %s: %w", filepath.Join(dir, LockFile), err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of the program: %w", err)
	}
	f := os.NewFile(FirstFD, "first connection")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}

func (s *shim) say(m Message, answer *order) {
	s.said = m
	s.control.say(m, answer)
}

// create brings the instance to Created.
func (s *shim) create(ctx context.Context) error {
	if err := ReadJSON(filepath.Join(s.dir, ConfigFile), &s.cfg); err != nil {
		return err
	}
	s.runc = runc{path: s.cfg.Runc, root: s.cfg.RuncRoot, dir: s.dir, id: s.cfg.ID}
	if err := mountRoot(s.dir, s.cfg); err != nil {
		return err
	}
	out, err := openOutput(s.cfg.Log, s.cfg.LogSize, s.cfg.LogFiles, time.Now)
	if err != nil {
		return &Failure{Step: "log", Text: err.Error()}
	}
	s.output = out
	ctx, cancel := context.WithTimeout(ctx, runtimeLimit)
	defer cancel()
	stdout, err := s.pipe("stdout")
	if err != nil {
		return err
	}
	defer stdout.Close() //nolint:errcheck // the program holds its own
	stderr, err := s.pipe("stderr")
	if err != nil {
		return err
	}
	defer stderr.Close() //nolint:errcheck // the program holds its own
	pid, err := s.runc.create(ctx, stdout, stderr)
	if err != nil {
		return err
	}
	s.born(ctx, pid)
	return nil
}

// born watches over the process that will be the program.
func (s *shim) born(ctx context.Context, pid int) {
	s.events = memoryEvents(pid)
	s.ended = make(chan syscall.WaitStatus, 1)
	go func() {
		var status syscall.WaitStatus
		for {
			_, err := syscall.Wait4(pid, &status, 0, nil)
			if err != syscall.EINTR {
				s.ended <- status
				return
			}
		}
	}()
	s.memfd = make(chan error, 1)
	go func() { s.memfd <- forbidMemfdExec(context.WithoutCancel(ctx), pid) }()
	s.say(Message{State: Created, PID: pid}, nil)
}

// pipe makes the stream's pipe, copies what comes out of it to the log and gives the end to write to.
func (s *shim) pipe(stream string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.readers = append(s.readers, r)
	s.copies.Go(func() { s.output.copy(r, stream) })
	return w, nil
}

// attend takes orders until the program has ended.
func (s *shim) attend(ctx context.Context, terms <-chan os.Signal) syscall.WaitStatus {
	first := s.control.first
	for {
		var expired <-chan time.Time
		if s.grace != nil {
			expired = s.grace.C
		}
		select {
		case status := <-s.ended:
			return status
		case o := <-s.control.orders:
			s.obey(ctx, o)
		case <-terms:
			s.stop(nil)
		case <-expired:
			s.signal(unix.SIGKILL)
		case <-first:
			first = nil
			if s.said.State == Created { // nobody will ever order the start
				s.signal(unix.SIGKILL)
			}
		}
	}
}

func (s *shim) obey(ctx context.Context, o order) {
	switch o.Op {
	case OpStart:
		s.start(ctx, &o)
	case OpStop:
		s.stop(&o)
	case OpKill:
		s.signal(unix.SIGKILL)
		s.say(s.said, &o)
	default:
		s.control.refuse(o, &Failure{Step: "order", Text: "unknown order " + o.Op})
	}
}

func (s *shim) start(ctx context.Context, o *order) {
	if s.said.State != Created {
		s.say(s.said, o)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeLimit)
	defer cancel()
	if s.memfd != nil {
		if err := <-s.memfd; err != nil {
			s.failed = &Failure{Step: "start", Text: "set vm.memfd_noexec: " + err.Error()}
		}
		s.memfd = nil
	}
	if s.failed == nil {
		s.failed = s.runc.start(ctx)
	}
	if s.failed != nil {
		s.control.refuse(*o, s.failed.(*Failure))
		return
	}
	m := s.said
	m.State, m.Started = Running, time.Now()
	if err := WriteJSON(filepath.Join(s.dir, StateFile), m); err != nil {
		s.control.refuse(*o, &Failure{Step: "start", Text: err.Error()})
		return
	}
	s.say(m, o)
}

// stop asks the program to end and sets the time after which it has to.
func (s *shim) stop(o *order) {
	switch s.said.State {
	case Created:
		s.signal(unix.SIGKILL)
	case Running:
		s.signal(syscall.Signal(s.cfg.Signal))
		s.grace = time.NewTimer(s.cfg.Grace)
		m := s.said
		m.State = Stopping
		s.say(m, o)
		return
	}
	s.say(s.said, o)
}

// signal cannot hit a stranger: the program's process ID stays taken until the
// shim has waited for it, and after that nothing calls this.
func (s *shim) signal(sig syscall.Signal) {
	_ = syscall.Kill(s.said.PID, sig) // ESRCH: it has just ended
}

// finish makes the exit status durable, tells it and takes the container away.
func (s *shim) finish(ctx context.Context, status syscall.WaitStatus) error {
	s.drain()
	exit := Exit{At: time.Now(), Tail: s.output.lastLines()}
	switch {
	case status.Signaled():
		exit.Code, exit.Signal = 128+int(status.Signal()), unix.SignalName(status.Signal())
	default:
		exit.Code = status.ExitStatus()
	}
	exit.OOM = exit.Code != 0 && s.events != "" && oomKills(s.events) > 0
	err := s.output.close()
	if !s.said.Started.IsZero() {
		err = errors.Join(err, WriteJSON(filepath.Join(s.dir, ExitFile), exit))
	}
	m := s.said
	m.State, m.Exit = Exited, &exit
	s.say(m, nil)
	ctx, cancel := context.WithTimeout(ctx, runtimeLimit)
	defer cancel()
	return errors.Join(err, s.runc.delete(ctx))
}

// drain waits for the end of the program's output. All its processes ended with
// it, so there is an end; a limit guards against what we do not know.
func (s *shim) drain() {
	done := make(chan struct{})
	go func() { s.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drainLimit):
		for _, r := range s.readers {
			_ = r.Close() // makes its reader end
		}
		<-done
	}
}
