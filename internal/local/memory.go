package local

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// inMemory opens a program so that it can be started by its descriptor: a copy in
// memory that nobody can change. runc makes sure that no program in a container can
// write to the file that runc init runs from; that it is such a copy already saves
// it from mounting a file system for every container (libcontainer/exeseal). Where
// the kernel forbids programs in memory it is the file itself.
func inMemory(path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("runc", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err != nil {
		return from, nil
	}
	defer from.Close() //nolint:errcheck // read only
	to := os.NewFile(uintptr(fd), path)
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Chmod(0o511)
	}
	if err == nil {
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_EXEC
		_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s into memory: %w", path, err), to.Close())
	}
	return to, nil
}
