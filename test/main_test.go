// Package e2e drives the real programs as a user would: it builds ashlar and
// ashlar-shim, starts servers in state directories of their own, deploys small Go
// programs and the examples, breaks things, and looks at what is observable: exit
// status, output, answers to requests, processes, mounts, links, control groups.
//
// It needs root and fails without. Every test begins at [newHost], which also ends
// everything after the test and makes sure that nothing is left on the machine.
// Requests stay on the loopback; only TestSite uses the network, for Debian's
// archive as the host's apt is set up.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bin is where the programs under test are.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("the integration suite runs containers: run it as root")
	}
	if bin, err = os.MkdirTemp("/tmp", "ashlar-bin-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	if err := build(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build makes the programs of the tree as it is. The runtime, which does not change
// with it, is taken from where `make build` leaves it, if it did.
func build() error {
	// Without cgo, as `make build`: programs that need nothing else in a container.
	if err := goBuild([]string{"CGO_ENABLED=0"}, "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./cmd/ashlar", "./cmd/ashlar-shim", "./cmd/ashlar-judge", "./cmd/ashlar-witness"); err != nil {
		return err
	}
	made, err := filepath.Abs("../bin/runc")
	if err != nil {
		return err
	}
	switch _, err := os.Stat(made); {
	case errors.Is(err, fs.ErrNotExist):
		return goBuild(nil, "-trimpath", "-tags=seccomp", "-ldflags=-s -w", "-o", bin+"/runc", "github.com/opencontainers/runc")
	case err != nil:
		return err
	}
	return os.Symlink(made, filepath.Join(bin, "runc"))
}

func goBuild(environ []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Env = append(cmd.Environ(), environ...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
