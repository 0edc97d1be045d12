package seal

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// fsContext is a file system being configured (fsopen(2), fsconfig(2)). The
// first error sticks and is returned by mount.
type fsContext struct {
	fs  string
	fd  int
	err error
}

func newContext(fs string) (*fsContext, error) {
	fd, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &mountError{fs: fs, err: err}
	}
	return &fsContext{fs: fs, fd: fd}, nil
}

func (c *fsContext) set(key, value string) {
	c.keep(func() error { return unix.FsconfigSetString(c.fd, key, value) })
}

func (c *fsContext) setFile(key string, f *os.File) {
	c.keep(func() error { return unix.FsconfigSetFd(c.fd, key, int(f.Fd())) })
}

func (c *fsContext) flag(key string) {
	c.keep(func() error { return unix.FsconfigSetFlag(c.fd, key) })
}

func (c *fsContext) keep(step func() error) {
	if c.err == nil {
		c.err = step()
	}
}

// mount creates the file system, read-only and without devices, as a mount that
// is attached nowhere and ends when the file is closed.
func (c *fsContext) mount() (*os.File, error) {
	c.keep(func() error { return unix.FsconfigCreate(c.fd) })
	fd := -1
	c.keep(func() (err error) {
		fd, err = unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV)
		return err
	})
	if c.err != nil {
		return nil, &mountError{fs: c.fs, err: c.err, log: c.log()}
	}
	return os.NewFile(uintptr(fd), c.fs), nil
}

// log is what the kernel has to say about a failure, if anything.
func (c *fsContext) log() []string {
	var lines []string
	buf := make([]byte, 4096)
	for len(lines) < 20 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		lines = append(lines, "kernel: "+strings.TrimSpace(string(buf[:n])))
	}
	return lines
}

func (c *fsContext) close() { _ = unix.Close(c.fd) } // nothing was written through it

// mountError is a refusal of the kernel to mount a file system.
type mountError struct {
	fs  string
	err error
	log []string
}

func (e *mountError) Error() string { return fmt.Sprintf("mount %s: %v", e.fs, e.err) }
func (e *mountError) Unwrap() error { return e.err }

// mountFault says what the kernel's refusal means and how to mend it.
func mountFault(target string, err error) error {
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return err
	}
	var m *mountError
	f := fault.New(fault.Unavailable, "cannot mount a sealed tree: %w", err).At(target)
	if errors.As(err, &m) {
		f.Detail(m.log...)
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return f.Mend("run the server as root: mounting needs CAP_SYS_ADMIN")
	case m != nil && errors.Is(err, unix.ENODEV):
		return f.Mend("load the kernel module (modprobe %s), or use a kernel that has it; ashlar doctor tells what else is missing", m.fs)
	case m != nil && m.fs == "erofs" && errors.Is(err, unix.ENOTBLK):
		return f.Mend("keep the state directory on a disk (ext4, xfs or btrfs; EROFS cannot be mounted from a file on tmpfs), with Linux 6.12 or newer and CONFIG_EROFS_FS_BACKED_BY_FILE")
	case m != nil:
		return f.Mend("use Linux 6.12 or newer; ashlar doctor tells what this kernel can do")
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return f.Mend("make the directory first")
	default:
		return f
	}
}
