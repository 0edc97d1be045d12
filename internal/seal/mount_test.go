package seal

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// mounted mounts seals at a new directory until the test ends.
func mounted(t testing.TB, s *object.Store, how way, seals ...digest.Digest) string {
	t.Helper()
	target := t.TempDir()
	if err := mount(target, s.Path(), seals, how); err != nil {
		t.Fatal(mountFault(target, err))
	}
	t.Cleanup(func() {
		if err := unmount(target); err != nil {
			t.Error(err)
		}
	})
	return target
}

// scan reads a directory into a tree as any program sees it.
func scan(t testing.TB, root string) image.Tree {
	t.Helper()
	tree, err := scanTree(root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func scanTree(root string) (image.Tree, error) {
	var entries []image.Entry
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		e, err := scanOne(p)
		e.Path = rel
		entries = append(entries, e)
		return err
	})
	return image.Sorted(entries), err
}

func scanOne(p string) (image.Entry, error) {
	fi, err := os.Lstat(p)
	if err != nil {
		return image.Entry{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	e := image.Entry{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), MTime: st.Mtim.Sec}
	switch fi.Mode().Type() {
	case fs.ModeDir:
		e.Type = image.Dir
	case fs.ModeSymlink:
		e.Type = image.Symlink
		e.Link, err = os.Readlink(p)
	case 0:
		e.Type, e.Size = image.File, fi.Size()
		e.Digest, err = hashFile(p)
	}
	if err != nil {
		return e, err
	}
	e.Xattrs, err = listAttributes(p)
	return e, err
}

func hashFile(p string) (digest.Digest, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return digest.NewDigest(digest.SHA256, h), err
}

func listAttributes(p string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	attrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return nil, err
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}

func TestMountedTreeIsTheTree(t *testing.T) {
	s := newStore(t)
	want := richTree(t, s)
	seal := put(t, s, want)
	for _, how := range []way{detached, attached} {
		got := scan(t, mounted(t, s, how, seal))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("way %d: %s", how, diff)
		}
	}
}

func TestMountedTreeCannotBeWritten(t *testing.T) {
	s := newStore(t)
	root := mounted(t, s, detached, put(t, s, richTree(t, s)))
	file := filepath.Join(root, "usr/bin/suid")
	_, create := os.Create(filepath.Join(root, "new"))
	_, open := os.OpenFile(file, os.O_WRONLY, 0)
	for name, err := range map[string]error{
		"create": create, "open for writing": open, "mkdir": os.Mkdir(filepath.Join(root, "new"), 0o755),
		"remove": os.Remove(file), "chmod": os.Chmod(file, 0o777), "rename": os.Rename(file, file+"2"),
		"xattr":   unix.Setxattr(file, "user.x", []byte("1"), 0),
		"remount": remountWritable(root, file),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
}

// remountWritable asks the kernel to make the mount writable, and then writes.
func remountWritable(root, file string) error {
	if err := unix.Mount("", root, "", unix.MS_REMOUNT, ""); err != nil {
		return err
	}
	return os.Chmod(file, 0o777)
}

func TestMountTable(t *testing.T) {
	for _, how := range []way{detached, attached} {
		s := newStore(t)
		before := mountTable(t)
		tree := richTree(t, s)
		base := put(t, s, tree)
		settings, err := SettingsTree(tree, release.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		top := put(t, s, settings)
		target := mounted(t, s, how, top, base)
		added := mountTable(t)[len(before):]
		if len(added) != 1 || !strings.Contains(added[0], target) || !strings.Contains(added[0], "ashlar:"+top.Encoded()+"+"+base.Encoded()) {
			t.Errorf("mounted (way %d): %q, want one overlay that names its seals", how, added)
		}
		if err := errors.Join(unmount(target), unmount(target)); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, mountTable(t)); diff != "" {
			t.Error(diff)
		}
	}
}

func mountTable(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestMountFailsWhole(t *testing.T) {
	for _, how := range []way{detached, attached} {
		s := newStore(t)
		good := put(t, s, richTree(t, s))
		notErofs, err := s.PutBytes([]byte(strings.Repeat("no image", 2000)))
		if err != nil {
			t.Fatal(err)
		}
		before := mountTable(t)
		target := t.TempDir()
		for _, seals := range [][]digest.Digest{{}, {good, notErofs}, {notErofs, good}, {good, digest.FromString("none")}, {"sha256:x"}} {
			if err := mount(target, s.Path(), seals, how); err == nil {
				t.Errorf("mounted %v", seals)
			}
		}
		if err := mount(filepath.Join(target, "missing"), s.Path(), []digest.Digest{good}, how); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mount at a missing directory: %v", err)
		}
		if err := mount(target, filepath.Join(target, "missing"), []digest.Digest{good}, how); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mount over missing objects: %v", err)
		}
		if diff := cmp.Diff(before, mountTable(t)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestMountRefusesADamagedSeal(t *testing.T) {
	s := newStore(t)
	seal := put(t, s, richTree(t, s))
	file, _ := s.File(seal)
	flip(t, file, 3000)
	target := t.TempDir()
	err := Mount(target, s.Path(), seal)
	if err := unmount(target); err != nil {
		t.Error(err)
	}
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || f.Where != file {
		t.Errorf("Mount: %v, want a refusal at %s", err, file)
	}
	t.Attr("refused", "not mounted <- one bit of a sealed tree")
}

func TestMountFaultsTellTheMend(t *testing.T) {
	s := newStore(t)
	garbage, err := s.PutBytes([]byte("garbage"))
	if err != nil {
		t.Fatal(err)
	}
	err = Mount(t.TempDir(), s.Path(), garbage)
	if f := fault.Of(err); f == nil || f.Kind != fault.Unavailable || f.Fix == "" {
		t.Errorf("Mount: %v", err)
	}
}

func TestMountWithOddPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a:b,c\d "e`, strings.Repeat("long", 60))
	s := openStore(t, dir)
	want := richTree(t, s)
	target := filepath.Join(dir, "x:y,z")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Mount(target, s.Path(), put(t, s, want)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(target); err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff(want, scan(t, target)); diff != "" {
		t.Error(diff)
	}
}

func TestUnmountOfWhatIsInUse(t *testing.T) {
	s := newStore(t)
	root := mounted(t, s, detached, put(t, s, richTree(t, s)))
	f, err := os.Open(filepath.Join(root, "etc/empty"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unmount(root); fault.Of(err) == nil || fault.Of(err).Kind != fault.Conflict {
		t.Errorf("unmount: %v, want a conflict", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unmount(filepath.Join(root, "..", "missing")); err != nil {
		t.Errorf("unmount of nothing: %v", err)
	}
}

func TestSettingsOverArtifact(t *testing.T) {
	s := newStore(t)
	base := richTree(t, s)
	content := []byte("listen 80;\n")
	d, err := s.PutBytes(content)
	if err != nil {
		t.Fatal(err)
	}
	conf := release.ConfigFile{Path: "/lib/app/conf", Digest: d, Size: int64(len(content)), Mode: 0o640, UID: 3}
	over := conf
	over.Path = "/usr/bin/suid"
	settings, err := SettingsTree(base, release.Spec{Files: []release.ConfigFile{conf, over}, Tmpfs: []release.Tmpfs{{Path: "/tmp"}, {Path: "/var/cache/app"}}})
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Merge(base, settings)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]uint32{
		"usr/lib/app/conf": 0o640, "usr/bin/suid": 0o640, "tmp": 0o1777, "var/cache/app": 0o755, "proc": 0o755,
		"sys": 0o755, "dev": 0o755, "etc/hosts": 0o644, "etc/resolv.conf": 0o644, "srv": 0o2750,
	} {
		if e, ok := want.Lookup(path); !ok || e.Mode != mode {
			t.Errorf("%s: %v, want mode %o", path, e, mode)
		}
	}
	for _, how := range []way{detached, attached} {
		if diff := cmp.Diff(want, scan(t, mounted(t, s, how, put(t, s, settings), put(t, s, base)))); diff != "" {
			t.Errorf("way %d: %s", how, diff)
		}
	}
}

func TestMountInAPrivateNamespace(t *testing.T) {
	s := newStore(t)
	want := richTree(t, s)
	seal := put(t, s, want)
	target := t.TempDir()
	before := mountTable(t)
	err := inPrivateNamespace(func() error {
		if err := Mount(target, s.Path(), seal); err != nil {
			return err
		}
		got, err := scanTree(target)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		return errors.Join(err, unmount(target))
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, mountTable(t)); diff != "" {
		t.Error(diff)
	}
}

func TestSupport(t *testing.T) {
	dir := t.TempDir()
	before := mountTable(t)
	for _, c := range Support(dir) {
		t.Logf("%+v", c)
		if c.Required && !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
		if !c.OK && c.Fix == "" {
			t.Errorf("%s: no way to mend it", c.Name)
		}
	}
	if diff := cmp.Diff(before, mountTable(t)); diff != "" {
		t.Error(diff)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, c := range Support(filepath.Join(dir, "missing")) {
		if c.OK && c.Required && c.Name != "root" {
			t.Errorf("%s is fine in a missing directory", c.Name)
		}
	}
}

// What is mounted is compared with what was sealed as whoever runs in it sees it: a
// changed byte, a mode, a file too many or too few is found and named.
func TestVerifyMounted(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"usr/a": "a", "usr/b": "bb"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := scan(t, dir)
	if m, err := VerifyMounted(t.Context(), dir, tree); err != nil || m.Files != 2 || m.Bytes != 3 {
		t.Fatalf("%+v, %v", m, err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct{ do, undo func() error }{
		"/usr/b":   {func() error { return os.WriteFile(file("usr/b"), []byte("bc"), 0o644) }, func() error { return os.WriteFile(file("usr/b"), []byte("bb"), 0o644) }},
		"/usr/a":   {func() error { return os.Chmod(file("usr/a"), 0o755) }, func() error { return os.Chmod(file("usr/a"), 0o644) }},
		"/usr":     {func() error { return os.Lchown(file("usr"), 7, 7) }, func() error { return os.Lchown(file("usr"), os.Getuid(), os.Getgid()) }},
		"/usr/new": {func() error { return os.WriteFile(file("usr/new"), nil, 0o644) }, func() error { return os.Remove(file("usr/new")) }},
		"/link": {func() error { return errors.Join(os.Remove(file("link")), os.Symlink("usr/b", file("link"))) },
			func() error { return errors.Join(os.Remove(file("link")), os.Symlink("usr/a", file("link"))) }},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		m, err := VerifyMounted(t.Context(), dir, tree)
		if err == nil || fault.Of(err).Kind != fault.Refused || len(m.Damage) != 1 || m.Damage[0].Path != name {
			t.Errorf("%s: %+v, %v", name, m.Damage, err)
		}
		t.Attr("refused", "path <- what an instance sees is another: "+name)
		if err := c.undo(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(file("usr/a")); err != nil {
		t.Fatal(err)
	}
	if m, err := VerifyMounted(t.Context(), dir, tree); err == nil || len(m.Damage) != 1 || m.Damage[0].Path != "/usr/a" {
		t.Errorf("one that is gone: %+v, %v", m, err)
	}
}
