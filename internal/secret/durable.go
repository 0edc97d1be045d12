package secret

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ashlar-infra/ashlar/internal/durable"
)

// halfMade is what a file is called while it is written. There is one writer; what a crash
// left of the last is in its way, and goes.
const halfMade = ".secret.new"

// create makes a file that was not there, whole and durable: temporary file, fsync, link,
// fsync of the directory. Linking, unlike renaming, never replaces.
func create(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, halfMade)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Link(temp, path)
	}
	return errors.Join(err, os.Remove(temp), durable.SyncDir(dir))
}

// makeDirs makes the directories from root down to dir, which nobody else may look into.
func makeDirs(root, dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		missing = append(missing, d)
		if d == root {
			break
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}
