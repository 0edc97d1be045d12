package object

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fanOut is the number of directories that objects are spread over.
const fanOut = 256

// renameInto is rename that makes the target's directory when it is missing; it
// says whether it did, and so whether that directory's parent is to be synced.
func renameInto(temp, path string) (made bool, err error) {
	err = os.Rename(temp, path)
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return true, os.Rename(temp, path)
}

// syncPath makes a file's bytes, or a directory's entries, durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

// syncFileSystem makes everything durable that was written to the file system of
// dir. Since Linux 5.8 it reports write-back errors, as fsync does.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	if err != nil {
		err = &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return errors.Join(err, f.Close())
}
