package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Instances and router go on while the server is away, and the next server takes
// the same processes over.
func TestAdoption(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	before, was := ids(a.settled()), a.births()
	run, talk := a.load(200, "Mark"), a.converse()

	a.stop()
	if now := a.births(); !maps.Equal(now, was) {
		t.Errorf("with the server's end other processes run: %v, before %v", now, was)
	}
	a.awaitMarker(run, "0")
	talk.says("v1", "without a server")
	a.ashlar("status").failed(6, "server")
	a.ashlar("deploy", "production", "-y").failed(6, "server")

	a.start()
	if now := ids(a.settled()); !slices.Equal(now, before) {
		t.Errorf("adopted are %v, before %v", now, before)
	}
	if now := a.births(); !maps.Equal(now, was) {
		t.Errorf("after the adoption other processes run: %v, before %v", now, was)
	}
	a.awaitMarker(run, "0")
	talk.says("v1", "with another server")
	talk.close()

	// What was adopted can be replaced like anything else.
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
	a.deploy()
	a.unharmed(run)
	a.oneRelease("1")
}

// An instance that ends while no server looks is replaced when one is back.
func TestEndedMeanwhile(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	before := ids(a.settled())
	a.stop()
	pids := a.pids(before[0])
	if len(pids) != 1 {
		t.Fatalf("processes of %s: %v", before[0], pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.await("the end of "+before[0], func() error {
		if left := a.pids(before[0]); len(left) > 0 {
			return fmt.Errorf("processes %v", left)
		}
		return nil
	})
	a.start()
	a.await("another instance", func() error {
		if now := ids(a.settled()); len(now) != 2 || !slices.Contains(now, before[1]) || slices.Contains(now, before[0]) {
			return fmt.Errorf("instances %v", now)
		}
		return nil
	})
	a.oneRelease("0")
	if log := a.ashlar("log", "production").ok(); !strings.Contains(log.stdout, "was ended by SIGKILL") {
		t.Errorf("the record does not say how it ended: %s", log)
	}
}

// births are the processes of the host with the moments at which they began, in
// the kernel's clock ticks: a process ID alone might have been given again.
func (h *host) births() map[int]string {
	out := map[int]string{}
	for pid := range h.working() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, ok := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); err == nil && ok && len(fields) > 19 {
			out[pid] = fields[19] // starttime, proc(5)
		}
	}
	return out
}
