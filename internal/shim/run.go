package shim

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/seal"
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
	streams []stream
	held    []*os.File    // locks of volumes
	twin    chan struct{} // holds one while a probe is under way

	said   Message
	over   bool                    // there is nothing to wait for any more
	pid    int                     // of the program, as the shim counts
	ended  chan syscall.WaitStatus // the program's end
	gone   chan struct{}           // closed then
	events string                  // see memoryEvents
	grace  *time.Timer             // set by a stop
	failed error                   // why the program cannot be started any more
}

// stream is one pipe that the program writes to.
type stream struct {
	name string
	read *os.File
}

// Run is the whole life of a shim. It returns when the instance is over and nothing
// of it is left but files in its directory.
func Run(ctx context.Context, b Birth) error {
	first, err := inherit()
	if err != nil {
		return err
	}
	s := &shim{dir: b.Dir, runc: runc{Birth: b}, control: newControl(), said: Message{State: Blank}, twin: make(chan struct{}, 1)}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	if err := s.prepare(ctx); err != nil {
		return err
	}
	listener, err := s.control.listen(b.Dir)
	if err != nil {
		return err
	}
	go s.control.serveFirst(s.control.greet(first))
	status := s.attend(ctx, terms)
	return errors.Join(s.finish(ctx, status), listener.Close())
}

// prepare does what can be done before anything is known of the instance.
func (s *shim) prepare(ctx context.Context) error {
	if err := settle(s.runc.Birth); err != nil {
		return err
	}
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
	return s.runc.prepare(ctx, stdout, stderr)
}

func (s *shim) say(m Message, answer *order) {
	s.said = m
	s.control.say(m, answer)
}

// create brings the instance to Created, or ends the shim.
func (s *shim) create(ctx context.Context, o *order) {
	if s.said.State != Blank || o.Create == nil {
		s.control.refuse(*o, &Failure{Step: "order", Text: "there is an instance already"})
		return
	}
	s.cfg, s.dir = *o.Create, o.Create.Dir
	s.say(Message{State: Creating}, nil)
	ctx, cancel := context.WithTimeout(ctx, runtimeLimit)
	defer cancel()
	if err := s.make(ctx); err != nil {
		var f *Failure
		if !errors.As(err, &f) {
			f = &Failure{Step: "create", Text: err.Error()}
		}
		s.runc.abandon()
		if err := s.runc.delete(ctx); err != nil {
			f.Text += "; " + err.Error()
		}
		s.say(Message{State: Failed, Error: f}, o)
		s.over = true
		return
	}
	s.cfg.Spec, s.cfg.Hosts = nil, nil
	s.say(Message{State: Created}, o)
}

func (s *shim) make(ctx context.Context) error {
	go rouseCgroups()
	out, err := openOutput(s.cfg.Log, s.cfg.LogSize, s.cfg.LogFiles, time.Now)
	if err != nil {
		return &Failure{Step: "log", Text: err.Error()}
	}
	s.output = out
	for _, from := range s.streams {
		s.copies.Go(func() { s.output.copy(from.read, from.name) })
	}
	private := s.runc.Private
	if err := os.WriteFile(filepath.Join(private, HostsFile), s.cfg.Hosts, 0o644); err != nil {
		return err
	}
	if err := s.keepSecrets(); err != nil {
		return err
	}
	if err := s.holdVolumes(); err != nil {
		return err
	}
	if err := seal.Mount(filepath.Join(private, Root), s.cfg.Objects, s.cfg.Seals...); err != nil {
		return &Failure{Step: "mount", Text: err.Error(), Fault: fault.Of(err)}
	}
	if s.pid, err = s.runc.create(ctx, s.cfg.Spec); err != nil {
		return err
	}
	s.watch()
	return nil
}

// watch waits for the end of the process that will be the program.
func (s *shim) watch() {
	pid := s.pid
	s.events = memoryEvents(pid)
	s.ended, s.gone = make(chan syscall.WaitStatus, 1), make(chan struct{})
	go func() {
		var status syscall.WaitStatus
		for {
			_, err := syscall.Wait4(pid, &status, 0, nil)
			if err != syscall.EINTR {
				s.ended <- status
				close(s.gone)
				return
			}
		}
	}()
}

// pipe makes the stream's pipe and gives the end to write to.
func (s *shim) pipe(name string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.streams = append(s.streams, stream{name, r})
	return w, nil
}

// attend takes orders until the program has ended, or there will never be one.
func (s *shim) attend(ctx context.Context, terms <-chan os.Signal) syscall.WaitStatus {
	first := s.control.first
	for !s.over {
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
			if s.said.State == Blank || s.said.State == Created { // nobody will ever order the start
				s.stop(nil)
			}
		}
	}
	return 0
}

func (s *shim) obey(ctx context.Context, o order) {
	switch o.Op {
	case OpCreate:
		s.create(ctx, &o)
	case OpStart:
		s.start(ctx, &o)
	case OpStop:
		s.stop(&o)
	case OpProbe:
		s.probe(ctx, o)
	case OpKill:
		s.kill()
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
	if s.failed == nil {
		s.failed = s.runc.start(ctx, s.gone)
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
	debug.FreeOSMemory() // nothing of the beginning is needed again
}

// stop asks the program to end and sets the time after which it has to.
func (s *shim) stop(o *order) {
	switch s.said.State {
	case Blank, Created:
		s.kill()
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

// kill ends the program, or the shim that has none.
func (s *shim) kill() {
	if s.said.State == Blank {
		s.runc.abandon()
		s.over = true
		return
	}
	s.signal(unix.SIGKILL)
}

// signal cannot hit a stranger: the program's process ID stays taken until the
// shim has waited for it, and after that nothing calls this.
func (s *shim) signal(sig syscall.Signal) {
	_ = syscall.Kill(s.pid, sig) // ESRCH: it has just ended
}

// finish makes the exit status durable, tells it and takes the container away.
func (s *shim) finish(ctx context.Context, status syscall.WaitStatus) error {
	if s.over {
		return nil
	}
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
		err = errors.Join(err, WriteDurableJSON(filepath.Join(s.dir, ExitFile), exit))
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
		for _, from := range s.streams {
			_ = from.read.Close() // makes its reader end
		}
		<-done
	}
}
