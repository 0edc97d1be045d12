// Package durable gives files new contents in one step: whoever reads one, and whatever
// is killed or loses power meanwhile, finds the old contents or the new and never a part
// of either. It knows nothing of what is in the files.
//
// The step is the usual one: a temporary file in the same directory, fsync, rename over
// the name, fsync of the directory (rename(2), fsync(2)). A process that is killed in
// between leaves the temporary file behind, whose name begins with a dot.
//
// Start at [Replace]. Objects, of which there are thousands, are package object's.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace puts content into the file at path, with the mode given, whatever the umask. Once
// it returned nil that survives the machine losing power.
func Replace(path string, content []byte, mode fs.FileMode) error {
	if err := swap(path, content, mode, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Swap is Replace for what may be lost when the machine loses power, and for nothing else:
// the file is whole or, after a power cut, possibly empty.
func Swap(path string, content []byte, mode fs.FileMode) error {
	return swap(path, content, mode, func(*os.File) error { return nil })
}

func swap(path string, content []byte, mode fs.FileMode, sync func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), sync(f), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// SyncDir makes the names in a directory durable: what was made, renamed or removed there.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
