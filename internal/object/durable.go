package object

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fanOut is the number of directories that objects are spread over.
const fanOut = 256

// makeFanOut makes objects/00 to objects/ff. All at once, and durable before the
// first object is stored, so that storing one never has to sync objects/ itself.
func (s *Store) makeFanOut() error {
	last := filepath.Join(s.Path(), fmt.Sprintf("%02x", fanOut-1))
	if _, err := os.Stat(last); err == nil {
		return nil
	}
	for i := range fanOut {
		err := os.Mkdir(filepath.Join(s.Path(), fmt.Sprintf("%02x", i)), 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return storing(s.dir, "make the object store", err)
		}
	}
	for _, dir := range []string{s.Path(), s.dir, filepath.Dir(s.dir)} {
		if err := syncPath(dir); err != nil {
			return storing(s.dir, "make the object store", err)
		}
	}
	return nil
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
