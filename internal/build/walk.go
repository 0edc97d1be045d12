package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// walker lists the files of a source directory, several directories at a time.
type walker struct {
	content  *content
	excluded func(name string) bool
	spare    chan struct{} // holds as many as may be busy beside the caller
}

// found is a file of the source.
type found struct {
	name string // relative to the definition's directory
	mode fs.FileMode
	stat statEntry
}

// walk gives every entry below dir that is neither a directory nor excluded, in
// order of name, directory by directory.
func (w *walker) walk(ctx context.Context, dir string) ([]found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list, err := w.list(dir)
	if err != nil {
		return nil, err
	}
	below, errs := make([][]found, len(list)), make([]error, len(list))
	var wait sync.WaitGroup
	for i, f := range list {
		if !f.mode.IsDir() {
			below[i] = list[i : i+1]
			continue
		}
		visit := func() { below[i], errs[i] = w.walk(ctx, f.name) }
		select {
		case w.spare <- struct{}{}:
			wait.Go(func() {
				visit()
				<-w.spare
			})
		default:
			visit()
		}
	}
	wait.Wait()
	return slices.Concat(below...), errors.Join(errs...)
}

// list gives what is in a directory and is not excluded, by name. It goes around
// os.File.ReadDir, which makes more of each file than is needed here.
func (w *walker) list(dir string) ([]found, error) {
	f, err := w.content.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, escapes(dir, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("reading the directory %s: %w", dir, err)
	}
	slices.Sort(names)
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	list := make([]found, 0, len(names))
	for _, name := range names {
		one := found{name: prefix + name}
		if w.excluded(one.name) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: w.content.key(one.name), Err: err}
		}
		one.mode, one.stat = modeOf(st.Mode), statOf(&st)
		if one.mode.IsDir() && name == ".git" {
			continue
		}
		list = append(list, one)
	}
	return list, nil
}

// kinds are the kernel's types of files as Go has them.
var kinds = map[uint32]fs.FileMode{
	unix.S_IFREG: 0, unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFIFO: fs.ModeNamedPipe,
	unix.S_IFSOCK: fs.ModeSocket, unix.S_IFBLK: fs.ModeDevice, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice,
}

// modeOf is the kernel's mode as Go has it, without set-id and sticky bits.
func modeOf(mode uint32) fs.FileMode {
	kind, ok := kinds[mode&unix.S_IFMT]
	if !ok {
		kind = fs.ModeIrregular
	}
	return kind | fs.FileMode(mode&0o777)
}
