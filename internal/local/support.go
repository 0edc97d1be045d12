package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ashlar-infra/ashlar/internal/seal"
)

// Check is one thing that this host can or cannot do for instances.
type Check = seal.Check

// Support examines the host. It changes nothing that stays.
func Support(ctx context.Context, runc, shim string) []Check {
	return []Check{
		checkRoot(), checkRunc(ctx, runc), checkSeccomp(ctx, runc), checkShim(ctx, shim),
		checkCgroups(), checkNetwork(), checkMemfd(),
	}
}

func checkRoot() Check {
	return Check{Name: "user", Required: true, OK: os.Geteuid() == 0, Detail: fmt.Sprintf("the server runs as user %d", os.Geteuid()), Fix: "run the server as root"}
}

func checkRunc(ctx context.Context, runc string) Check {
	c := Check{Name: "runc", Required: true, Fix: "put runc beside ashlar, or name it with --runc; make build makes it"}
	out, err := exec.CommandContext(ctx, runc, "--version").Output()
	if err != nil {
		c.Detail = fmt.Sprintf("%s does not run: %v", runc, err)
		return c
	}
	version, _, _ := strings.Cut(string(bytes.TrimSpace(out)), "\n")
	c.OK, c.Detail = true, version+" at "+runc
	return c
}

func checkSeccomp(ctx context.Context, runc string) Check {
	c := Check{Name: "seccomp", Required: true, Fix: "build runc with -tags seccomp, as  make build  does; it needs Debian's libseccomp-dev"}
	out, err := exec.CommandContext(ctx, runc, "features").Output()
	var features struct {
		Linux struct {
			Seccomp struct{ Enabled *bool }
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &features)
	}
	switch on := features.Linux.Seccomp.Enabled; {
	case err != nil:
		c.Detail = fmt.Sprintf("the runtime does not tell its features: %v", err)
	case on == nil || !*on:
		c.Detail = "the runtime was built without seccomp"
	default:
		c.OK, c.Detail = true, "the runtime filters system calls"
	}
	return c
}

// checkShim starts the shim, which says what it is to who gives it nothing to do.
func checkShim(ctx context.Context, shim string) Check {
	c := Check{Name: "shim", Required: true, OK: true, Detail: shim, Fix: "put ashlar-shim beside ashlar, or name it with --shim; make build makes it"}
	out, err := exec.CommandContext(ctx, shim).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		c.OK, c.Detail = false, fmt.Sprintf("%s does not run: %v", shim, err)
	case !bytes.HasPrefix(out, []byte("ashlar-shim is started by the ashlar server")):
		c.OK, c.Detail = false, shim+" is another program"
	}
	return c
}

// checkCgroups wants the controllers that limits need, in either version.
func checkCgroups() Check {
	c := Check{Name: "cgroups", Required: true, Fix: "mount the cgroup controllers cpu, memory and pids"}
	version, have := "v1", []string(nil)
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		version, have = "v2", strings.Fields(string(b))
	} else if entries, err := os.ReadDir("/sys/fs/cgroup"); err == nil {
		for _, e := range entries {
			have = append(have, strings.Split(e.Name(), ",")...)
		}
	}
	var missing []string
	for _, want := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(have, want) {
			missing = append(missing, want)
		}
	}
	c.OK, c.Detail = len(missing) == 0, version+" with cpu, memory and pids"
	if !c.OK {
		c.Detail = version + " without " + strings.Join(missing, ", ")
	}
	return c
}

// checkNetwork makes a bridge in a network namespace that goes at once.
func checkNetwork() Check {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and its namespace with it
		ns, err := netns.New()
		if err != nil {
			done <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		defer ns.Close() //nolint:errcheck // nothing was written
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "ashlar-check"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			done <- fmt.Errorf("make a bridge: %w", err)
			return
		}
		attrs.Name = "ashlar-veth"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "ashlar-peer"}); err != nil {
			done <- fmt.Errorf("make a link: %w", err)
			return
		}
		done <- nil
	}()
	c := Check{Name: "network", Required: true, OK: true, Detail: "namespaces, bridges and virtual links can be made", Fix: "run the server with CAP_NET_ADMIN and CAP_SYS_ADMIN on a kernel with bridge and veth"}
	if err := <-done; err != nil {
		c.OK, c.Detail = false, err.Error()
	}
	return c
}

func checkMemfd() Check {
	c := Check{Name: "memory execution", Fix: "use Linux 6.3 or newer"}
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		c.Detail = "the kernel has no vm.memfd_noexec: a program can execute what it holds in memory"
		return c
	}
	c.OK, c.Detail = true, "programs cannot execute from memory (vm.memfd_noexec)"
	return c
}
