package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// traces are what a host's instances have on the machine, by kind and name.
type traces struct {
	bridge    string // its name; empty: no instance ever ran
	processes map[int]string
	spaces    map[string]bool // network namespaces of the processes, without the machine's own
	others    []string        // mounts, links, control groups, directories
}

// traces looks at the machine.
func (h *host) traces() traces { return h.tracesOf(h.processes(), nil) }

// usedTraces are those without what lies ready.
func (h *host) usedTraces() traces {
	var links []string
	for _, unit := range h.lying() {
		sum := sha256.Sum256([]byte(filepath.Join(h.dir, "run") + "\x00" + unit))
		links = append(links, "link ash"+hex.EncodeToString(sum[:6]))
	}
	return h.tracesOf(h.working(), links)
}

func (h *host) tracesOf(processes map[int]string, but []string) traces {
	x := traces{bridge: h.bridge(), processes: processes, spaces: map[string]bool{}}
	own, _ := os.Readlink("/proc/self/ns/net") // compared only
	for pid := range x.processes {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && ns != own {
			x.spaces[ns] = true
		}
	}
	x.others = slices.Concat(h.mounts(), linksOf(x.bridge), cgroupsOf(x.bridge), h.directories())
	x.others = slices.DeleteFunc(x.others, func(o string) bool { return slices.Contains(but, o) })
	return x
}

// words lists everything, sorted, to be compared with another look.
func (x traces) words() []string {
	out := slices.Clone(x.others)
	for pid, what := range x.processes {
		out = append(out, fmt.Sprintf("process %d %s", pid, what))
	}
	for ns := range x.spaces {
		out = append(out, "network namespace "+ns)
	}
	slices.Sort(out)
	return out
}

// left lists what is there although everything should be gone; x is from before.
func (x traces) left(h *host) []string {
	now := h.traces()
	now.others = slices.Concat(h.mounts(), linksOf(x.bridge), cgroupsOf(x.bridge), h.directories())
	out := now.words()
	held, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is right
	for _, file := range held {
		if ns, err := os.Readlink(file); err == nil && x.spaces[ns] {
			out = append(out, "network namespace "+ns+", held by "+file)
		}
	}
	return out
}

// bridge is the name of the host's bridge, from what the platform remembers of it.
func (h *host) bridge() string {
	var stored struct{ Bridge string }
	b, err := os.ReadFile(filepath.Join(h.dir, "run", "network.json"))
	if err == nil {
		err = json.Unmarshal(b, &stored)
	}
	if err != nil {
		return ""
	}
	return stored.Bridge
}

// processes finds the shims, runtimes, routers and programs of the host: by what
// they were called with, or by their control group. The server is not among them.
func (h *host) processes() map[int]string {
	found := map[int]string{}
	group := "/ashlar/" + strings.TrimPrefix(h.bridge(), "ash-") + "/"
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(d, "cmdline")) // it may end meanwhile
		groups, _ := os.ReadFile(filepath.Join(d, "cgroup"))
		words := strings.ReplaceAll(string(args), "\x00", " ")
		if strings.Contains(words, h.dir+"/") || group != "/ashlar//" && strings.Contains(string(groups), group) {
			found[pid] = strings.TrimSpace(words)
		}
	}
	return found
}

// lying gives what lies ready for a change that may come: shims that are no instance's yet.
func (h *host) lying() []string {
	units, _ := filepath.Glob(filepath.Join(h.dir, "run", "b", "*")) // the pattern is right
	for i, u := range units {
		units[i] = filepath.Base(u)
	}
	return units
}

// working are the processes, without those of what lies ready.
func (h *host) working() map[int]string {
	lying := h.lying()
	found := h.processes()
	maps.DeleteFunc(found, func(_ int, words string) bool {
		return slices.ContainsFunc(lying, func(unit string) bool { return strings.Contains(words, unit) })
	})
	return found
}

// mounts finds mounts below the state directory; the directory itself may be one.
func (h *host) mounts() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.t.Error(err)
	}
	var out []string
	for _, l := range lines(string(b)) {
		if fields := strings.Fields(l); len(fields) > 4 && strings.HasPrefix(fields[4], h.dir+"/") {
			out = append(out, "mount "+l)
		}
	}
	return out
}

// directories are those of instances.
func (h *host) directories() []string {
	var out []string
	for _, pattern := range []string{"run/i/*", "run/i/.*", "run/runc/*"} {
		found, _ := filepath.Glob(filepath.Join(h.dir, pattern)) // the pattern is right
		for _, f := range found {
			out = append(out, "directory "+f)
		}
	}
	return out
}

// linksOf finds a bridge and what is connected to it.
func linksOf(bridge string) []string {
	if bridge == "" {
		return nil
	}
	var out []string
	if _, err := os.Stat("/sys/class/net/" + bridge); err == nil {
		out = append(out, "link "+bridge)
	}
	masters, _ := filepath.Glob("/sys/class/net/*/master") // the pattern is right
	for _, m := range masters {
		if to, err := os.Readlink(m); err == nil && filepath.Base(to) == bridge {
			out = append(out, "link "+filepath.Base(filepath.Dir(m)))
		}
	}
	return out
}

// cgroupsOf finds the control groups of the server with that bridge, v1 and v2.
func cgroupsOf(bridge string) []string {
	if bridge == "" {
		return nil
	}
	name := strings.TrimPrefix(bridge, "ash-")
	var out []string
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, below := range []string{"", "*"} {
			found, _ := filepath.Glob(filepath.Join(top, "ashlar", name, below)) // the pattern is right
			for _, f := range found {
				if info, err := os.Stat(f); err == nil && info.IsDir() {
					out = append(out, "control group "+f)
				}
			}
		}
	}
	return out
}
