package local

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Room says why so many instances more of each component would not fit into the memory that
// the host has left. One more is taken to use what the largest that runs of it uses now: limits
// say what may be used, which is mostly far more. nil: they fit, as far as that tells.
func (p *Platform) Room(_ context.Context, env rollout.Key, more map[string]int) error {
	left, err := p.cfg.memoryLeft()
	if err != nil {
		return fault.New(fault.Unavailable, "the memory that is left cannot be told: %w", err)
	}
	var need int64
	var words []string
	for _, name := range slices.Sorted(maps.Keys(more)) {
		need += int64(more[name]) * p.uses(env, name)
		words = append(words, fmt.Sprintf("%d more of %s", more[name], name))
	}
	if need <= left {
		return nil
	}
	// Without numbers: whoever asks again and again hears the same until it is different.
	return fault.New(fault.Unavailable, "too little memory is left for %s beside what runs", strings.Join(words, " and ")).
		Mend("end something else on this host, or lower  replicas:")
}

// uses is the memory of the component's largest instance, in bytes; 0 if none runs.
func (p *Platform) uses(env rollout.Key, component string) int64 {
	p.mu.Lock()
	var groups []string
	for id, i := range p.instances {
		if i.meta.Key == env && i.meta.Instance.Component == component {
			groups = append(groups, p.cgroup(id))
		}
	}
	p.mu.Unlock()
	var most int64
	for _, group := range groups {
		most = max(most, memoryUsed(group))
	}
	return most
}

// memoryUsed is what a control group uses, without file cache that the kernel can drop, in
// bytes; 0 if it is not known.
func memoryUsed(cgroup string) int64 {
	dirs, err := cgroupDirs(cgroup)
	if err != nil {
		return 0
	}
	for _, dir := range dirs {
		for usage, cache := range map[string]string{"memory.current": "inactive_file", "memory.usage_in_bytes": "total_inactive_file"} {
			b, err := os.ReadFile(filepath.Join(dir, usage))
			if err != nil {
				continue // another controller's, or of the other version
			}
			used, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			idle, _ := line(filepath.Join(dir, "memory.stat"), cache)
			if err == nil {
				return max(used-idle, 0)
			}
		}
	}
	return 0
}

// memoryLeft is what programs can have without pushing others out (proc(5), MemAvailable), in bytes.
func memoryLeft() (int64, error) {
	kib, err := line("/proc/meminfo", "MemAvailable:")
	return kib << 10, err
}

// line reads the number after a name in a file of such lines.
func line(path, name string) (n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	in := bufio.NewScanner(f)
	for in.Scan() {
		if words := strings.Fields(in.Text()); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no line %s", path, name)
}
