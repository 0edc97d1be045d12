package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/keyfile"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/nft"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// examine checks what this machine can do, without a server.
func examine(ctx context.Context, q cli.DoctorRequest) []api.Check {
	var checks []api.Check
	if err := os.MkdirAll(q.Dir, 0o755); err != nil {
		checks = append(checks, api.Check{Name: "state directory", Detail: err.Error(), Fix: "choose another with --dir"})
	} else {
		for _, c := range seal.Support(q.Dir) {
			checks = append(checks, api.Check{Name: c.Name, OK: c.OK, Detail: c.Detail, Fix: c.Fix})
		}
	}
	runc, shim := programs(q.Runc, q.Shim)
	known := map[string]bool{}
	for _, c := range checks {
		known[c.Name] = true
	}
	for _, c := range local.Support(ctx, runc, shim) {
		if !known[c.Name] {
			checks = append(checks, api.Check{Name: c.Name, OK: c.OK, Detail: c.Detail, Fix: c.Fix})
		}
	}
	for _, c := range nft.Support() {
		checks = append(checks, api.Check{Name: c.Name, OK: c.OK, Detail: c.Detail, Fix: c.Fix})
	}
	return append(append(checks, checkJudge(ctx)), checkPrograms()...)
}

// checkJudge has the program that judges policies judge one.
func checkJudge(ctx context.Context) api.Check {
	path := program("", "ashlar-judge")
	c := api.Check{Name: "judge", OK: true, Detail: path, Fix: "put ashlar-judge beside ashlar; make build makes it. Without it nothing is admitted where there is a policy"}
	a, err := judgeOnce(ctx, policy.Question{Name: "doctor", Document: []byte("rules:\n  works:\n    why: It can judge.\n    allow: \"1 + 1 == 2\"\n"), Facts: &policy.Facts{}})
	switch {
	case err != nil:
		c.OK, c.Detail = false, path+" does not judge: "+strings.Join(append([]string{fault.Of(err).What}, fault.Of(err).Details...), ": ")
	case a.Verdict == nil || !a.Verdict.Admitted:
		c.OK, c.Detail = false, path+" is of another version: it judges wrongly"
	}
	return c
}

// others are programs and files of others that single features need, with the packages
// of Debian that have them.
var others = []struct {
	name  string
	need  []string // one of them; a path or the name of a program
	serve string   // what for
	fix   string
}{
	{"go", []string{"go"}, "go: sources of builds", "install Go (https://go.dev/dl) and put its bin directory into PATH"},
	{"debian keyring", []string{debian.DefaultKeyring}, "debian: sources of builds", "apt-get install debian-archive-keyring"},
	{"dockerfile builder", build.ImageTools, "dockerfile: sources of builds", "apt-get install podman"},
	{"git", []string{"git"}, "anchors of the record in Git repositories", "apt-get install git"},
	{"pkcs11-tool", []string{keyfile.PKCS11Tool}, "keys in tokens (pkcs11:…)", "apt-get install opensc"},
}

// checkPrograms looks for what others have to install. Each is needed by one feature.
func checkPrograms() []api.Check {
	var checks []api.Check
	for _, o := range others {
		c := api.Check{Name: o.name, Detail: "none of " + strings.Join(o.need, ", ") + " is there; needed for " + o.serve + " alone", Fix: o.fix}
		for _, name := range o.need {
			path, err := exec.LookPath(name)
			if filepath.IsAbs(name) { // a file, which need not be a program
				path = name
				_, err = os.Stat(name)
			}
			if err == nil {
				c.OK, c.Detail = true, path
				break
			}
		}
		checks = append(checks, c)
	}
	return checks
}

// programs finds the programs that run instances: as they are named, else beside
// this program, else in PATH.
func programs(runc, shim string) (string, string) {
	return program(runc, "runc"), program(shim, "ashlar-shim")
}

func program(named, name string) string {
	if named != "" {
		return named
	}
	self, err := os.Executable()
	if err != nil {
		return name
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(beside); err == nil {
		return beside
	}
	if found, err := exec.LookPath(name); err == nil {
		return found
	}
	return beside // what is missing is named with the place where it should be
}
