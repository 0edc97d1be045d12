package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nothing can change a running instance: not the program in it, and not root
// outside of it by way of its tree.
func TestImmutable(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	pid := a.pids(ids(a.settled())[0])[0]
	root := fmt.Sprintf("/proc/%d/root", pid)
	for _, path := range []string{"/new", "/usr/bin/web", "/usr/bin/new", "/etc/hosts", "/etc/passwd", "/dev/new"} {
		err := os.WriteFile(root+path, []byte("x"), 0o644)
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("root writes %s: %v", path, err)
		}
	}
	if err := os.Remove(root + "/usr/bin/web"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("root removes the program: %v", err)
	}
	if err := os.Chmod(root+"/usr/bin/web", 0o777); !errors.Is(err, syscall.EROFS) {
		t.Errorf("root changes the program's mode: %v", err)
	}
	for _, path := range []string{"/new", "/usr/bin/web", "/etc/hosts", "/dev/new", "/dev/shm/new", "/proc/sys/kernel/hostname", "/sys/new", "/run/new", "/var/tmp/new"} {
		if got := a.get("/write?path=" + url.QueryEscape(path)); got == "<nil>" {
			t.Errorf("the program can write %s", path)
		}
	}
	if got := a.get("/write?path=/tmp/new"); got != "<nil>" {
		t.Errorf("the program cannot write to its tmpfs: %s", got)
	}
	if got := a.get("/execute?dir=/tmp"); !strings.Contains(got, "permission denied") {
		t.Errorf("the program can execute what it wrote: %s", got)
	}
	a.mountsOf(pid)
	a.privilegesOf(pid)
}

// mountsOf expects one place that can be written to, from which nothing can be executed.
func (a *app) mountsOf(pid int) {
	a.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, l := range lines(string(b)) {
		fields := strings.Fields(l)
		place, options := fields[4], ","+fields[5]+","
		if strings.Contains(options, ",ro,") || place == "/proc" {
			continue
		}
		if place != "/tmp" {
			a.t.Errorf("can be written to: %s", l)
		}
		for _, o := range []string{"noexec", "nosuid", "nodev"} {
			if !strings.Contains(options, ","+o+",") {
				a.t.Errorf("%s is not %s: %s", place, o, l)
			}
		}
	}
}

// privilegesOf expects none, and namespaces of its own.
func (a *app) privilegesOf(pid int) {
	a.t.Helper()
	status := statusOf(a.t, pid)
	for field, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2",
		"Uid": "65532\t65532\t65532\t65532", "Gid": "65532\t65532\t65532\t65532", "Groups": "",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := status[field]; got != want {
			a.t.Errorf("%s is %q, not %q", field, got, want)
		}
	}
	for _, space := range []string{"net", "pid", "mnt", "ipc", "uts", "cgroup"} {
		own, err := os.Readlink("/proc/self/ns/" + space)
		inside, err2 := os.Readlink(filepath.Join("/proc", fmt.Sprint(pid), "ns", space))
		if err := errors.Join(err, err2); err != nil || own == inside {
			a.t.Errorf("its %s namespace is %s, this machine's %s: %v", space, inside, own, err)
		}
	}
}

// statusOf reads /proc/PID/status.
func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range lines(string(b)) {
		name, value, _ := strings.Cut(l, ":")
		out[name] = strings.TrimSpace(value)
	}
	return out
}
