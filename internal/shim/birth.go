package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Birth is what a shim knows before it is told what it is for.
type Birth struct {
	Unit     string `json:"unit"`     // the container's name to the runtime
	Dir      string `json:"dir"`      // where its files are, until Create names the instance's directory
	Private  string `json:"private"`  // an empty directory, over which the shim mounts a tmpfs that it alone sees
	RuncRoot string `json:"runcRoot"` // its state directory
}

// Namespaces are those that a shim is born into: it must be started with them.
// The program inherits the network. The process namespace has the shim as its init:
// when the shim dies, the kernel kills everything that it has started.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID

// settle makes the shim's surroundings its own. What is mounted here the host never
// sees, and it goes when shim and program are gone.
func settle(b Birth) error {
	if err := markLock(b.Dir); err != nil {
		return err
	}
	// What the host unmounts still goes here too, so nothing is kept busy.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mount namespace private: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", "/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", b.Private, "tmpfs", flags, "mode=0700,size=4m"); err != nil {
		return fmt.Errorf("mount the private directory: %w", err)
	}
	if err := os.Mkdir(filepath.Join(b.Private, Root), 0o755); err != nil {
		return err
	}
	return setSysctls()
}

// markLock writes the shim's process ID, as the host counts it, into the lock file.
// It must come before the shim has a /proc of its own.
func markLock(dir string) error {
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(LockFD, []byte(pid+"\n"), 0); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(dir, LockFile), err)
	}
	return nil
}

// Kernel parameters that programs inherit with their namespaces.
const (
	NoExecMemory = "vm.memfd_noexec"                     // 2: nothing can execute from memory; came with Linux 6.3
	LowestPort   = "net.ipv4.ip_unprivileged_port_start" // 0: a program without privileges can listen on any port of its own network
)

// setSysctls sets what the program inherits with the namespaces. IPv6 stays on the loopback.
func setSysctls() error {
	for _, s := range []struct{ name, value string }{
		{NoExecMemory, "2"},
		{LowestPort, "0"},
		{"net.ipv6.conf.default.disable_ipv6", "1"},
	} {
		if err := Sysctl(s.name, s.value); err != nil {
			return err
		}
	}
	return nil
}

// Sysctl sets a kernel parameter of the namespaces that the caller is in. Of one that
// the kernel does not know there is nothing to set.
func Sysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// inherit takes over the descriptors that the shim was born with.
func inherit() (net.Conn, error) {
	for _, fd := range []int{FirstFD, LockFD, RuntimeFD} {
		unix.CloseOnExec(fd)
	}
	f := os.NewFile(FirstFD, "first connection")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}
