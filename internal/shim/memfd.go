package shim

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// MemfdArg as the only argument makes the shim's program write vm.memfd_noexec
// of the PID namespace it finds itself in, and end.
const MemfdArg = "memfd-noexec"

const memfdSysctl = "/proc/sys/vm/memfd_noexec"

// forbidMemfdExec sets vm.memfd_noexec=2 in the program's PID namespace: nothing
// in it can execute from memory. The kernel takes the value for the namespace of
// whoever writes, so a child is born into it to do so; runc knows no such sysctl.
// Kernels before 6.3 have none: then nothing is done.
func forbidMemfdExec(ctx context.Context, pid int) error {
	if _, err := os.Stat(memfdSysctl); err != nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- spawnInPIDNamespace(ctx, pid) }()
	return <-done
}

// spawnInPIDNamespace never unlocks its thread: the thread, whose children belong to
// another namespace, ends with the goroutine.
func spawnInPIDNamespace(ctx context.Context, pid int) error {
	runtime.LockOSThread()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // read only
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter the PID namespace: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", MemfdArg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Run()
}

// WriteMemfdSysctl is what MemfdArg asks for.
func WriteMemfdSysctl() error { return os.WriteFile(memfdSysctl, []byte("2"), 0) }
