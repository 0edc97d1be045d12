package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/nft"
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
