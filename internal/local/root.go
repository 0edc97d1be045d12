package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// RootOf is the root file system of a running instance as its processes see it: a
// path below /proc. It asks nobody, so that no server has to run. A process of the
// instance that has another root than the others is a fault of kind Refused.
func RootOf(runDir, id string) (string, error) {
	pids, err := members(runDir, id)
	if err == nil && len(pids) == 0 {
		err = errors.New("it has no process")
	}
	if err != nil {
		return "", fault.New(fault.NotFound, "the instance %s does not run here: %w", id, err)
	}
	first := filepath.Join("/proc", pids[0], "root")
	at, err := rootID(pids[0])
	if err != nil {
		return "", fault.New(fault.NotFound, "the root of the instance %s cannot be found: %w", id, err)
	}
	for _, pid := range pids[1:] {
		other, err := rootID(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil || other != at {
			return "", fault.New(fault.Refused, "process %s of the instance %s has another root than process %s", pid, id, pids[0])
		}
	}
	return first, nil
}

// members are the processes in the instance's control group, as this process's namespace
// numbers them: runc, in the shim's, has other numbers.
func members(runDir, id string) ([]string, error) {
	var m struct {
		Unit string `json:"unit"`
	}
	if err := readJSON(filepath.Join(runDir, "i", filepath.Base(id), "instance.json"), &m); err != nil {
		return nil, err
	}
	var state struct { // of runc
		Cgroups map[string]string `json:"cgroup_paths"` // by controller; one for all with version 2
	}
	if err := readJSON(filepath.Join(runDir, "runc", filepath.Base(m.Unit), "state.json"), &state); err != nil {
		return nil, err
	}
	var errs []error
	for _, dir := range state.Cgroups {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err == nil {
			return strings.Fields(string(text)), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// rootID tells roots apart: by the mount namespace, and the directory in it.
func rootID(pid string) (string, error) {
	ns, err := os.Readlink(filepath.Join("/proc", pid, "ns", "mnt"))
	if err != nil {
		return "", err
	}
	dir, err := os.Readlink(filepath.Join("/proc", pid, "root"))
	return fmt.Sprint(ns, dir), err
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
