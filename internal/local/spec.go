package local

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	openFiles   = 65536  // RLIMIT_NOFILE, or the server's own limit where that is lower
	cpuPeriod   = 100000 // microseconds
)

// runtimeSpec is the container of an instance, as the OCI runtime specification says
// it, with the values of its secrets where variables hold them.
func (p *Platform) runtimeSpec(m meta, secrets map[string][]byte) (*specs.Spec, error) {
	limits, err := rlimits()
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: shim.Root, Readonly: true},
		Hostname: m.Instance.Component,
		Process: &specs.Process{
			User:            specs.User{UID: uint32(m.Spec.UID), GID: uint32(m.Spec.GID)},
			Args:            m.Spec.Command,
			Env:             append(environment(m), secretVariables(m.Spec, secrets)...),
			Cwd:             workDir(m.Spec),
			Capabilities:    capabilities(m.Spec.Capabilities),
			Rlimits:         limits,
			NoNewPrivileges: true,
		},
		Mounts: slices.Concat(mounts(m.Spec), p.hostsMount(m), p.volumeMounts(m), p.secretMounts(m.Spec)),
		Linux: &specs.Linux{
			CgroupsPath:   p.cgroup(m.Instance.ID),
			Namespaces:    namespaces(),
			Resources:     resources(m.Spec),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
	spec.Linux.Seccomp, err = filter(spec)
	return spec, err
}

// twinSpec is the container that a health check's command runs in: as the instance,
// without its volumes, in a control group of its own.
func (p *Platform) twinSpec(m meta, secrets map[string][]byte) (*specs.Spec, error) {
	command, twin := m.Spec.Health.Exec, m
	twin.Spec.Volumes = nil
	spec, err := p.runtimeSpec(twin, secrets)
	if err != nil {
		return nil, err
	}
	spec.Root.Path = filepath.Join(p.privateDir(), shim.Root)
	spec.Process.Args = command
	spec.Linux.CgroupsPath = p.twinCgroup(m.Instance.ID)
	return spec, nil
}

// filter is the default seccomp profile for the host's own architecture alone:
// the system calls of others (32-bit programs) kill who makes them. Building the
// filter is the slowest part of making a container, and this takes two thirds of it away.
func filter(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return nil, fault.New(fault.Internal, "make the seccomp profile: %w", err)
	}
	profile.Architectures = profile.Architectures[:min(1, len(profile.Architectures))] // its own is the first
	return profile, nil
}

func workDir(s release.Spec) string {
	if s.WorkDir == "" {
		return "/"
	}
	return s.WorkDir
}

// environment is PATH, then what Ashlar says, then the spec's own, which wins.
func environment(m meta) []string {
	env := []string{
		defaultPath,
		"ASHLAR_RELEASE=" + m.Instance.Release.String(),
		"ASHLAR_INSTANCE=" + m.Instance.ID,
		"ASHLAR_COMPONENT=" + m.Instance.Component,
	}
	if m.Spec.Port != 0 {
		env = append(env, fmt.Sprintf("PORT=%d", m.Spec.Port))
	}
	if m.Instance.Fence > 0 {
		env = append(env, fmt.Sprintf("ASHLAR_FENCE=%d", m.Instance.Fence))
	}
	kept := env[:0]
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if _, own := m.Spec.Env[name]; !own {
			kept = append(kept, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Spec.Env)) {
		kept = append(kept, name+"="+m.Spec.Env[name])
	}
	return kept
}

// capabilities gives a program that is not root what its spec names, and nothing else.
func capabilities(names []string) *specs.LinuxCapabilities {
	caps := make([]string, 0, len(names))
	for _, c := range names {
		caps = append(caps, "CAP_"+strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
}

// mounts leaves nothing writable but the declared tmpfs; volumes come on top. There is no /dev/shm, no
// message queue and no control group unless a tmpfs is declared there.
func mounts(s release.Spec) []specs.Mount {
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k", "ro"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	for _, t := range s.Tmpfs {
		out = append(out, specs.Mount{
			Destination: t.Path, Type: "tmpfs", Source: "tmpfs",
			Options: []string{
				"nosuid", "noexec", "nodev",
				fmt.Sprintf("size=%d", t.Size), fmt.Sprintf("mode=%o", t.Mode),
				fmt.Sprintf("uid=%d", s.UID), fmt.Sprintf("gid=%d", s.GID),
			},
		})
	}
	return out
}

// hostsMount puts hosts at /etc/hosts, unless the release has a file for it. The
// settings layer holds the empty file to mount on.
func (p *Platform) hostsMount(m meta) []specs.Mount {
	own := slices.ContainsFunc(m.Spec.Files, func(f release.ConfigFile) bool { return f.Path == "/etc/hosts" })
	if own || m.Spec.Settings == "" {
		return nil
	}
	return []specs.Mount{{
		Destination: "/etc/hosts", Type: "bind", Source: filepath.Join(p.privateDir(), shim.HostsFile),
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
	}}
}

// hosts is what an instance can call by name: itself, and the services of its environment.
func (p *Platform) hosts(m meta) []byte {
	text := fmt.Appendf(nil, "127.0.0.1 localhost\n::1 localhost\n%s %s\n", m.Address, m.Instance.Component)
	peers := p.peers(m.Key)
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if name != m.Instance.Component {
			text = fmt.Appendf(text, "%s %s\n", peers[name], name)
		}
	}
	return text
}

// peers are the services of an environment.
func (p *Platform) peers(k rollout.Key) map[string]netip.Addr {
	if p.cfg.Peers == nil {
		return nil
	}
	return p.cfg.Peers(k)
}

// namespaces are the program's own. Its network is the shim's.
func namespaces() []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		out = append(out, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return out
}

func resources(s release.Spec) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if s.MilliCPU > 0 {
		quota, period := max(s.MilliCPU*cpuPeriod/1000, 1000), uint64(cpuPeriod)
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if s.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &s.Memory}
		if swapIsCounted() {
			r.Memory.Swap = &s.Memory // memory and swap together: no swap
		}
	}
	if s.PIDs > 0 {
		r.Pids = &specs.LinuxPids{Limit: &s.PIDs}
	}
	return r
}

// swapIsCounted is false on a cgroup v1 kernel without swap accounting, where a
// limit on swap would be an error.
func swapIsCounted() bool {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		return true // v2
	}
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	return err == nil
}

// rlimits stays within the server's own hard limit: to go beyond takes CAP_SYS_RESOURCE.
func rlimits() ([]specs.POSIXRlimit, error) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return nil, fault.New(fault.Internal, "read the limit of open files: %w", err)
	}
	files := min(own.Max, openFiles)
	return []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: files, Hard: files},
		{Type: "RLIMIT_CORE"},
	}, nil
}

func stopSignal(s release.Spec) (int, error) {
	if s.StopSignal == "" {
		return int(unix.SIGTERM), nil
	}
	n := unix.SignalNum(s.StopSignal)
	if n == 0 {
		return 0, fault.New(fault.Invalid, "stop signal %q is not known", s.StopSignal).Mend("write  SIGTERM, SIGQUIT, SIGINT or another name from  kill -l")
	}
	return int(n), nil
}

// What of /proc and /sys tells too much of the host, or lets it be changed.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/cgroup",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)
