package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// create makes the instance and starts its program. After an error, purge takes
// away whatever was made.
func (p *Platform) create(ctx context.Context, i *instance) error {
	var err error
	if i.meta.Address, err = p.network.take(); err != nil {
		return err
	}
	if err := p.lay(i); err != nil {
		return err
	}
	conn, err := p.spawn(i)
	if err != nil {
		return err
	}
	i.attend(shim.NewClient(conn, i.heard))
	made, err := i.awaitMade(ctx)
	if err != nil {
		return err
	}
	if err := p.network.attach(made.PID, i.meta.Link, i.meta.Address); err != nil {
		return err
	}
	if _, err := i.client().Order(ctx, shim.OpStart); err != nil {
		return p.explain(i, err)
	}
	i.probe(false, false)
	return nil
}

// lay writes the instance's directory, instance.json first.
func (p *Platform) lay(i *instance) error {
	dir, id := i.dir(), i.meta.Instance.ID
	cfg, err := p.shimConfig(i.meta)
	if err != nil {
		return err
	}
	spec, err := p.runtimeSpec(i.meta)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fault.New(fault.Unavailable, "make the directory of instance %s: %w", id, err).At(dir)
	}
	err = shim.WriteJSON(filepath.Join(dir, metaFile), i.meta)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, hostsFile), hosts(i.meta), 0o644)
	}
	for name, v := range map[string]any{shim.ConfigFile: cfg, shim.SpecFile: spec} {
		if err == nil {
			err = writeNew(filepath.Join(dir, name), v)
		}
	}
	if err != nil {
		return fault.New(fault.Unavailable, "write the settings of instance %s: %w", id, err).At(dir)
	}
	return nil
}

func (p *Platform) shimConfig(m meta) (shim.Config, error) {
	signal, err := stopSignal(m.Spec)
	if err != nil {
		return shim.Config{}, err
	}
	seals := []digest.Digest{m.Spec.Settings, m.Spec.Tree} // top first
	if m.Spec.Settings == "" {
		seals = seals[1:]
	}
	return shim.Config{
		ID: m.Instance.ID, Runc: p.cfg.Runc, RuncRoot: p.runcRoot(),
		Objects: p.cfg.Objects, Seals: seals,
		Log: p.logFile(m.Key, m.Instance.ID), LogSize: p.cfg.LogSize, LogFiles: p.cfg.LogFiles,
		Signal: signal, Grace: time.Duration(m.Spec.StopGraceMS) * time.Millisecond,
	}, nil
}

// writeNew writes a file that only a shim reads which is started after it: nothing
// needs it after a crash, so nothing waits for the disk.
func writeNew(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// spawn starts the shim: in a session and a mount namespace of its own, with a
// connection to it and the lock that says that it lives.
func (p *Platform) spawn(i *instance) (net.Conn, error) {
	conn, theirs, err := connection()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "make a connection for the shim: %w", err)
	}
	defer theirs.Close() //nolint:errcheck // the shim has its own
	err = p.exec(i, theirs)
	if err != nil {
		return nil, errors.Join(fault.New(fault.Unavailable, "start the shim of instance %s: %w", i.meta.Instance.ID, err).At(p.cfg.Shim), conn.Close())
	}
	return conn, nil
}

func (p *Platform) exec(i *instance, first *os.File) error {
	lock, err := os.OpenFile(filepath.Join(i.dir(), shim.LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // the shim has its own
	if err := flock(p.ctx, lock); err != nil {
		return err
	}
	stderr, err := os.OpenFile(filepath.Join(i.dir(), shim.ErrorFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close() //nolint:errcheck // the shim has its own
	cmd := exec.Command(p.cfg.Shim, i.dir())
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=20", "GOMEMLIMIT=8MiB"} // small rather than fast
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{shim.FirstFD - 3: first, shim.LockFD - 3: lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		// Its end is seen by its connection; this only lets the kernel forget it.
		if err := cmd.Wait(); err != nil {
			p.cfg.Log.Warn("shim failed", "instance", i.meta.Instance.ID, "err", err)
		}
	}()
	return nil
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

// awaitMade waits until the shim says that the container is there.
func (i *instance) awaitMade(ctx context.Context) (shim.Message, error) {
	select {
	case m := <-i.first:
		if m.Error != nil {
			return m, i.platform.explain(i, m.Error)
		}
		return m, nil
	case <-i.client().Done():
		select {
		case m := <-i.first:
			if m.Error != nil {
				return m, i.platform.explain(i, m.Error)
			}
		default:
		}
		return shim.Message{}, i.platform.explain(i, shim.ErrGone)
	case <-ctx.Done():
		return shim.Message{}, fmt.Errorf("start instance %s: %w", i.meta.Instance.ID, ctx.Err())
	}
}

// touch makes an empty file.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
