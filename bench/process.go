package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one process of the machine.
type process struct {
	pid, parent int
	name        string // file name of its program, from its command line
	command     string // the whole command line
}

// below lists a process and everything that descends from it.
func below(root int) ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	in := map[int]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.parent] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
	var tree []process
	for _, p := range all {
		if in[p.pid] {
			tree = append(tree, p)
		}
	}
	return tree, nil
}

// processes lists all that can be read; what ends meanwhile is left out.
func processes() ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	var all []process
	for _, d := range dirs {
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state ppid …; the name may contain anything, also ")".
		_, rest, _ := cutLast(string(stat), ") ")
		fields := strings.Fields(rest)
		args, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(fields) < 2 {
			continue
		}
		first, _, _ := strings.Cut(string(args), "\x00")
		p := process{name: filepath.Base(first), command: strings.ReplaceAll(string(args), "\x00", " ")}
		p.pid, _ = strconv.Atoi(filepath.Base(d))
		p.parent, _ = strconv.Atoi(fields[1])
		all = append(all, p)
	}
	return all, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// written sums what processes sent to the disk so far: write_bytes of
// /proc/PID/io, which includes that of children that ended and were waited for.
// So its growth over the tree of the server is what server, router, shims and all
// that came and went under them wrote.
func written(tree []process) (int64, error) {
	var sum int64
	for _, p := range tree {
		n, err := procField(p.pid, "io", "write_bytes:")
		if os.IsNotExist(err) {
			continue // it has ended; its parent has its count
		}
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// resident is a process's resident set, in bytes.
func resident(pid int) (int64, error) {
	kb, err := procField(pid, "status", "VmRSS:")
	return kb << 10, err
}

// procField reads a number of a "name: value" file of a process.
func procField(pid int, file, name string) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
