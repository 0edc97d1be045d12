package seal

import (
	"errors"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Try says whether Mount would work: it checks the images against their seals and
// mounts everything as Mount does, attached nowhere, so that nobody sees it, and lets
// it go. On kernels before 6.15 the overlay is left out, as it would have to be seen.
func Try(objects string, seals ...digest.Digest) error {
	layers, err := mountImages("", objects, seals, detached)
	if err == nil {
		merged, failed := overlay(objects, seals, layers, detached)
		if failed == nil {
			failed = merged.Close()
		}
		if !errors.Is(failed, unix.EINVAL) {
			err = failed
		}
	}
	for _, l := range layers {
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		return mountFault("a trial", err)
	}
	return nil
}
