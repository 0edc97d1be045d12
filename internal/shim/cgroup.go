package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cgroupRoot = "/sys/fs/cgroup"

// memoryGroup finds the directory of a process's memory control group. It gives ""
// when there is none; v1 says which version it is of.
func memoryGroup(process string) (dir string, v1 bool) {
	b, err := os.ReadFile(filepath.Join("/proc", process, "cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" {
			dir = filepath.Join(cgroupRoot, parts[2])
		}
		for _, c := range strings.Split(parts[1], ",") {
			if c == "memory" {
				return filepath.Join(cgroupRoot, "memory", parts[2]), true
			}
		}
	}
	return dir, false
}

// memoryEvents finds the file that counts a process's OOM kills: memory.oom_control
// of cgroup v1, memory.events of v2. Both have a line "oom_kill N". It gives "" when
// the process has no memory cgroup.
func memoryEvents(pid int) string {
	dir, v1 := memoryGroup(strconv.Itoa(pid))
	switch {
	case dir == "":
		return ""
	case v1:
		return filepath.Join(dir, "memory.oom_control")
	default:
		return filepath.Join(dir, "memory.events")
	}
}

// rouseCgroups saves the runtime a wait. Before a process changes its control group the
// kernel waits until every processor has noticed (an RCU grace period, 10 to 20 ms),
// but not again within the next moments. Moving the shim to where it is already
// lets that pass while the root is mounted. It does no harm where it fails.
func rouseCgroups() {
	dir, _ := memoryGroup("self")
	if f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("0") // the writer itself
		_ = f.Close()
	}
}

func oomKills(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			count, _ := strconv.Atoi(n) // not a number: none known
			return count
		}
	}
	return 0
}
