package shim

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// mountRoot puts the instance's root in place, in the mount namespace that the shim
// was born into: the host never sees it, and it goes when shim and program are
// gone. What the host unmounts still goes here too, so nothing is kept busy.
func mountRoot(dir string, cfg Config) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &Failure{Step: "mount", Text: "make the mount namespace private: " + err.Error()}
	}
	target := filepath.Join(dir, RootDir)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return &Failure{Step: "mount", Text: err.Error()}
	}
	if err := seal.Mount(target, cfg.Objects, cfg.Seals...); err != nil {
		return &Failure{Step: "mount", Text: err.Error(), Fault: fault.Of(err)}
	}
	return nil
}
