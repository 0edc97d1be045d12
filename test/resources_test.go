package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// The memory that the parts may take when they are idle, in KiB.
const (
	serverMost = 60 << 10
	shimMost   = 12 << 10
)

func TestResources(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	for i := range 3 {
		a.edit("ashlar.yaml", fmt.Sprintf(`MARK: "%d"`, i), fmt.Sprintf(`MARK: "%d"`, i+1))
		a.deploy()
	}
	a.settled()
	a.weighs("server", a.server.cmd.Process.Pid, serverMost)
	shims := 0
	for pid, words := range a.working() {
		if strings.Contains(words, "/ashlar-shim ") {
			shims++
			a.weighs("shim", pid, shimMost)
		}
	}
	if shims != 2 {
		t.Errorf("2 instances have %d shims", shims)
	}
}

// weighs expects a process to come down to a resident set, once it is idle.
func (a *app) weighs(what string, pid, most int) {
	a.t.Helper()
	a.await(what+" to be small", func() error {
		size, err := strconv.Atoi(strings.TrimSuffix(statusOf(a.t, pid)["VmRSS"], " kB"))
		if err == nil && size >= most {
			err = fmt.Errorf("%d KiB", size)
		}
		if err == nil {
			a.t.Logf("%s: %.1f MiB", what, float64(size)/1024)
		}
		return err
	})
}
