package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

const triedYAML = `app: tried
components:
  sh:
    build:
      - debian:
          suite: bookworm
          packages: [dash]
          minimise: {test: [/bin/sh, -c, "SCRIPT"], timeout: LIMIT}
    run: {command: [/bin/sh]}
environments: {production: {}}
`

// The run test of a minimised component: what passes is not run again, what does not
// fails the build, and of one whose build is killed nothing stays. Package local has the
// rest of what a test may do.
func TestRunTest(t *testing.T) {
	a := &app{host: &host{t: t, dir: t.TempDir(), said: &text{}}, dir: t.TempDir()}
	script := func(text, limit string) {
		a.write("ashlar.yaml", strings.NewReplacer("SCRIPT", text, "LIMIT", limit).Replace(triedYAML))
	}
	script("exec 2>&1; ls; echo broken; exit 3", "20s")
	for range 2 {
		a.ashlar("build").failed(fault.Refused.ExitCode(), "ashlar.yaml:5:", "the run test ended with status 3", "| /bin/sh: 1: ls: not found", "| broken", "command: /bin/sh -c ")
	}
	a.ashlar("build", "--untested").ok()
	script("while :; do :; done", "1s")
	a.ashlar("build").failed(fault.Refused.ExitCode(), "ashlar.yaml:5:", "the run test did not end within 1s")

	script("exit 0 # again", "20s")
	a.run(exec.Command("unshare", "--user", filepath.Join(bin, "ashlar"), "build"))().failed(fault.Unavailable.ExitCode(), "the run test needs root", "ashlar build --untested")
	if r := a.ashlar("build").ok(); !strings.Contains(r.stderr, "run test") {
		t.Errorf("the test is not run: %s", r)
	}
	if r := a.ashlar("build").ok(); strings.Contains(r.stderr, "run test") {
		t.Errorf("a test that has passed is run again: %s", r)
	}

	script("echo more; while :; do :; done", "10m")
	cmd := exec.Command(filepath.Join(bin, "ashlar"), "build")
	wait := a.run(cmd)
	a.await("the run test", func() error {
		if len(a.tried()) < 2 { // the keeper is not enough
			return errNotYet
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
	a.await("the end of the run test", func() error {
		if left := a.tried(); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	script("exit 0", "20s")
	a.ashlar("build").ok()
	if left := a.tried(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// tried is what there is of a run test: processes, control groups, files.
func (a *app) tried() []string {
	a.t.Helper()
	dir := filepath.Join(a.host.dir, "trial")
	sum := sha256.Sum256([]byte(dir))
	group := "/ashlar/trial-" + hex.EncodeToString(sum[:6])
	var out []string
	for _, pattern := range []string{"/proc/[0-9]*/cgroup", "/sys/fs/cgroup" + group, "/sys/fs/cgroup/*" + group, dir} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			a.t.Fatal(err)
		}
		for _, f := range found {
			if b, err := os.ReadFile(f); !strings.HasPrefix(f, "/proc/") || err == nil && strings.Contains(string(b), group) {
				out = append(out, f)
			}
		}
	}
	return out
}
