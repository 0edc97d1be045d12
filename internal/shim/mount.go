package shim

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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
	if err := mountTree(target, cfg); err != nil {
		return &Failure{Step: "mount", Text: err.Error()}
	}
	return nil
}

func mountTree(target string, cfg Config) error {
	if err := unix.Mount(cfg.Dir, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}
