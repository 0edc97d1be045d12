package object

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
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

// syncDirs makes the directories of the store durable, before anything is written
// into them. It is not known whether they are: who made them may have been killed.
func (s *Store) syncDirs() error {
	return syncAll([]string{s.Path(), s.refs(), s.dir, filepath.Dir(s.dir)})
}

// syncAll is syncPath for several at the same time, which shares the disk's flushes.
func syncAll(paths []string) error {
	var g errgroup.Group
	for _, path := range paths {
		g.Go(func() error { return syncPath(path) })
	}
	return g.Wait()
}

// topDir is FS_TOPDIR_FL of linux/fs.h: a directory's subdirectories are not
// related to each other (chattr +T).
const topDir = 0x20000

// spread lets the file system place each session's files in a part of the disk of
// its own, where it can. Without it ext4 looks for every new file where the ones
// before are; without a journal it passes over each inode that was freed there in
// the last five minutes, one by one, which made storing 4,000 files take 5 s in
// place of 1 s after other programs had removed many.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return // only speed is at stake
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topDir)) // not every file system has it
	}
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
