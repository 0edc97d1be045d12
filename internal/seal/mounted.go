package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Mounted is what [VerifyMounted] found.
type Mounted struct {
	Files   int      // regular files that were read
	Bytes   int64    // of them
	Covered []string // paths on which something else is mounted: what is below was not looked at
	Damage  []Damage
}

// VerifyMounted reads a file system below root as whoever runs in it sees it, and
// compares it with trees that lie over each other, the last on top: names, types,
// modes, owners, sizes, links, and the digest of every file. What is in no tree is
// damage too. If there is any, the error is a Refused fault that names it.
func VerifyMounted(ctx context.Context, root string, layers ...image.Tree) (Mounted, error) {
	m := &mountedTree{want: map[string]image.Entry{}, root: root}
	for _, t := range layers {
		for _, e := range t.Entries {
			m.want[e.Path] = e
		}
	}
	top, err := m.stat(".")
	if err != nil {
		return m.Mounted, fault.New(fault.Unavailable, "the mounted tree cannot be read: %w", err).At(root)
	}
	m.mount = top.Mnt_id
	if err := m.walk(ctx, "."); err != nil {
		return m.Mounted, err
	}
	for p := range m.want {
		if !slices.ContainsFunc(m.Covered, func(c string) bool { return p == c || strings.HasPrefix(p, c+"/") }) {
			m.note(p, "it is not there")
		}
	}
	slices.SortFunc(m.Damage, func(a, b Damage) int { return strings.Compare(a.Path, b.Path) })
	if len(m.Damage) == 0 {
		return m.Mounted, nil
	}
	f := fault.New(fault.Refused, "the mounted tree is not what was sealed: %d paths differ", len(m.Damage)).At(root)
	for _, d := range m.Damage[:min(len(m.Damage), maxNamed)] {
		f.Detail(d.Path + ": " + d.Problem)
	}
	return m.Mounted, f
}

// maxNamed is how many damaged paths an error names.
const maxNamed = 20

type mountedTree struct {
	Mounted
	want  map[string]image.Entry // what was not met yet
	root  string
	mount uint64
}

func (m *mountedTree) note(path, format string, args ...any) {
	m.Damage = append(m.Damage, Damage{Path: "/" + path, Problem: fmt.Sprintf(format, args...)})
}

func (m *mountedTree) stat(path string) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.root+"/"+path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
	return st, err
}

// walk looks at a path and all below it.
func (m *mountedTree) walk(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	st, err := m.stat(path)
	if err != nil {
		m.note(path, "it cannot be read: %v", err)
		return nil
	}
	if st.Mnt_id != m.mount {
		m.Covered = append(m.Covered, path)
		return nil
	}
	e, ok := m.want[path]
	delete(m.want, path)
	if !ok {
		m.note(path, "nothing of the kind was sealed")
		return nil
	}
	if problem := m.compare(ctx, e, st); problem != "" {
		m.note(path, "%s", problem)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	names, err := os.ReadDir(filepath.Join(m.root, path))
	if err != nil {
		m.note(path, "it cannot be listed: %v", err)
		return nil
	}
	for _, n := range names {
		if err := m.walk(ctx, filepath.Join(path, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// compare says how something differs from what was sealed; empty if it does not.
func (m *mountedTree) compare(ctx context.Context, e image.Entry, st unix.Statx_t) string {
	kind := map[uint16]image.Type{unix.S_IFDIR: image.Dir, unix.S_IFREG: image.File, unix.S_IFLNK: image.Symlink}[st.Mode&unix.S_IFMT]
	switch {
	case kind != e.Type:
		return fmt.Sprintf("it is of another type than the %s that was sealed", e.Type)
	case kind != image.Symlink && uint32(st.Mode&0o7777) != e.Mode:
		return fmt.Sprintf("its mode is %04o; %04o was sealed", st.Mode&0o7777, e.Mode)
	case int(st.Uid) != e.UID || int(st.Gid) != e.GID:
		return fmt.Sprintf("its owner is %d:%d; %d:%d was sealed", st.Uid, st.Gid, e.UID, e.GID)
	}
	switch kind {
	case image.Symlink:
		if to, err := os.Readlink(filepath.Join(m.root, e.Path)); err != nil || to != e.Link {
			return fmt.Sprintf("it leads to %q; %q was sealed", to, e.Link)
		}
	case image.File:
		got, n, err := digestOf(ctx, filepath.Join(m.root, e.Path))
		if err != nil {
			return fmt.Sprintf("it cannot be read: %v", err)
		}
		m.Files, m.Bytes = m.Files+1, m.Bytes+n
		if got != e.Digest {
			return fmt.Sprintf("its bytes are %s; %s was sealed", got, e.Digest)
		}
	}
	return ""
}

func digestOf(ctx context.Context, path string) (_ digest.Digest, n int64, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	for n = 0; err == nil; {
		if err := ctx.Err(); err != nil {
			return "", n, err
		}
		var some int64
		some, err = io.CopyN(h, f, 16<<20)
		n += some
	}
	if !errors.Is(err, io.EOF) {
		return "", n, err
	}
	return image.FromSum([32]byte(h.Sum(nil))), n, nil
}
