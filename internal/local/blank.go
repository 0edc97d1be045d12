package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// blank is a shim that has not been told yet what it is for. It has a network with
// an address, and the runtime's process waits for a specification. Nothing of it
// depends on who takes it, so it can be born before anybody is there to.
type blank struct {
	unit   string // its name to the runtime and in blanksDir
	addr   netip.Addr
	link   string
	client *shim.Client

	born     chan struct{} // closed when it is there, or err says why not
	attached chan struct{} // closed when it has a network, or linkErr says why not
	err      error
	linkErr  error

	mu    sync.Mutex
	hello chan struct{}      // closed by the first thing that it says
	to    func(shim.Message) // who hears it since
}

func (p *Platform) blanksDir() string           { return filepath.Join(p.cfg.RunDir, "b") }
func (p *Platform) blankDir(unit string) string { return filepath.Join(p.blanksDir(), unit) }
func (p *Platform) privateDir() string          { return filepath.Join(p.cfg.RunDir, "own") }

// bear starts a shim and connects it to the bridge. It returns at once; born and
// attached tell the rest.
func (p *Platform) bear() *blank {
	b := &blank{born: make(chan struct{}), attached: make(chan struct{}), hello: make(chan struct{})}
	p.watches.Go(func() {
		pid, err := p.spawn(b)
		if err == nil {
			err = p.awaitHello(b)
		}
		if err != nil {
			b.err = err
		}
		close(b.born)
		if err == nil {
			b.linkErr = p.network.attach(pid, b.link, b.addr)
		}
		close(b.attached)
	})
	return b
}

// spawn starts the shim: in a session and namespaces of its own, with a connection
// to it and the lock that says that it lives.
func (p *Platform) spawn(b *blank) (pid int, err error) {
	var name [6]byte
	_, _ = rand.Read(name[:]) // never fails
	b.unit = hex.EncodeToString(name[:])
	b.link = p.linkName(b.unit)
	if b.addr, err = p.network.take(); err != nil {
		return 0, err
	}
	if err := os.Mkdir(p.blankDir(b.unit), 0o700); err != nil {
		return 0, fault.New(fault.Unavailable, "make the directory of an instance: %w", err).At(p.blanksDir())
	}
	conn, theirs, err := connection()
	if err != nil {
		return 0, fault.New(fault.Unavailable, "make a connection for the shim: %w", err)
	}
	defer theirs.Close() //nolint:errcheck // the shim has its own
	if pid, err = p.exec(b, theirs); err != nil {
		return 0, errors.Join(fault.New(fault.Unavailable, "start the shim of an instance: %w", err).At(p.cfg.Shim), conn.Close())
	}
	b.client = shim.NewClient(conn, b.heard)
	return pid, nil
}

func (p *Platform) exec(b *blank, first *os.File) (int, error) {
	dir := p.blankDir(b.unit)
	lock, err := os.OpenFile(filepath.Join(dir, shim.LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer lock.Close() //nolint:errcheck // the shim has its own
	if err := flock(p.ctx, lock); err != nil {
		return 0, err
	}
	stderr, err := os.OpenFile(filepath.Join(dir, shim.ErrorFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer stderr.Close() //nolint:errcheck // the shim has its own
	birth, err := json.Marshal(shim.Birth{Unit: b.unit, Dir: dir, Private: p.privateDir(), RuncRoot: p.runcRoot()})
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(p.cfg.Shim, string(birth))
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=100", "GOMEMLIMIT=10MiB"} // small rather than fast
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{shim.FirstFD - 3: first, shim.LockFD - 3: lock, shim.RuntimeFD - 3: p.runc}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: shim.Namespaces}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		// Its end is seen by its connection; this only lets the kernel forget it.
		if err := cmd.Wait(); err != nil {
			p.cfg.Log.Warn("shim failed", "unit", b.unit, "err", err)
		}
	}()
	return cmd.Process.Pid, nil
}

// awaitHello waits until the shim has done what it can without a task.
func (p *Platform) awaitHello(b *blank) error {
	select {
	case <-b.hello:
		return nil
	case <-b.client.Done():
		return fault.New(fault.Unavailable, "the shim of an instance ended at once").At(p.cfg.Shim).
			Detail(lastText(filepath.Join(p.blankDir(b.unit), shim.ErrorFile))...)
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// heard takes what the shim says.
func (b *blank) heard(m shim.Message) {
	b.mu.Lock()
	to := b.to
	if to == nil && m.State == shim.Blank {
		select {
		case <-b.hello:
		default:
			close(b.hello)
		}
	}
	b.mu.Unlock()
	if to != nil {
		to(m)
	}
}

func (b *blank) tell(to func(shim.Message)) {
	b.mu.Lock()
	b.to = to
	b.mu.Unlock()
}

// ended says whether the shim is gone.
func (b *blank) ended() bool { return ended(b.client) }

func ended(c *shim.Client) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// dismiss takes away a blank that nobody needs.
func (p *Platform) dismiss(ctx context.Context, b *blank) error {
	<-b.attached
	var err error
	if b.client != nil {
		err = b.client.Close() // it leaves when the connection ends
	}
	if err = errors.Join(err, p.sweepBlank(ctx, b.unit)); err == nil {
		p.network.release(b.addr)
	}
	return err
}

// sweepBlank takes away what is left of a blank whose connection has ended.
func (p *Platform) sweepBlank(ctx context.Context, unit string) error {
	dir := p.blankDir(unit)
	if err := p.awaitShim(ctx, dir); err != nil {
		return err
	}
	return errors.Join(deleteLink(p.linkName(unit)), os.RemoveAll(dir))
}

// connection is a socket pair: ours, and theirs as a file to hand over.
func connection() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "server")
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}
