package local

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// marble is a secret's value. It must not be in any file.
const marble = "marble-4711"

func keeping(s *release.Spec) {
	s.Volumes = []release.Mount{{Path: "/data", Volume: "data", Mode: release.VolumeExclusive, Snapshot: true}}
	s.Secrets = []release.Secret{{Name: "key", Version: 1, Path: "/run/secrets/key", Env: "KEY"}}
}

func withSecrets(c *Config) {
	c.Secrets = func(_ context.Context, k rollout.Key, s release.Secret) ([]byte, error) {
		if k != env || s.Name != "key" || s.Version != 1 {
			return nil, fault.New(fault.NotFound, "no secret %s", s.Name)
		}
		return []byte(marble), nil
	}
}

// said waits until the instance has said what it has to, and gives it.
func (w *world) said(id, last string) string {
	w.t.Helper()
	for l, err := range w.Logs(w.t.Context(), Query{Env: env, ID: id, Tail: -1, Follow: true}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.HasPrefix(l.Text, last) {
			break
		}
	}
	var out strings.Builder
	for l, err := range w.Logs(w.t.Context(), Query{Env: env, ID: id, Tail: -1}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out.WriteString(l.Text + "\n")
	}
	return out.String()
}

func wants(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, l+"\n") {
			t.Errorf("%q is missing in\n%s", l, text)
		}
	}
}

// An instance writes to its volume and nothing can be executed there; it has its
// secret in memory, as a file of its user and as the variable that asks for it.
func TestVolumeAndSecret(t *testing.T) {
	w := newWorld(t, withSecrets)
	in := order("keeps-1")
	in.Fence = 7
	if err := w.Start(t.Context(), env, in, spec("keeps", keeping)); err != nil {
		t.Fatal(err)
	}
	wants(t, w.said("keeps-1", "waiting"), "kept: <nil>", "names: [keeps-1] <nil>",
		"exec data: fork/exec /data/program: permission denied", "secret: "+marble+" <nil>",
		"write secret: open /run/secrets/key: read-only file system", "mode: -r-------- 65532",
		"variable: "+marble+" fence: 7")
	w.nowhere(marble)
}

// nowhere expects that no file of the platform holds the text. Output is the program's own.
func (w *world) nowhere(text string) {
	w.t.Helper()
	err := filepath.WalkDir(w.cfg.RunDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), text) {
			w.t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// An exclusive volume has one holder: a second instance is refused as long as the
// first lives, whatever happened to the server in between, and finds everything when it has ended.
func TestExclusiveVolume(t *testing.T) {
	w := newWorld(t, withSecrets)
	w.start("keeps-1", spec("keeps", keeping))
	w.said("keeps-1", "waiting")
	w.refusesSecondHolder("keeps-2")
	w.reopen(t)
	w.refusesSecondHolder("keeps-3")
	if err := w.Remove(t.Context(), "keeps-1"); err != nil {
		t.Fatal(err)
	}
	w.start("keeps-4", spec("keeps", keeping))
	wants(t, w.said("keeps-4", "waiting"), "kept: <nil>", "names: [keeps-1 keeps-4] <nil>")
}

func (w *world) refusesSecondHolder(id string) {
	w.t.Helper()
	err := w.Start(w.t.Context(), env, order(id), spec("keeps", keeping))
	if fault.Of(err).Kind != fault.Conflict || !strings.Contains(err.Error(), "volume data is held by keeps-1") {
		w.t.Errorf("a second holder: %v", err)
	}
}

// When the shim is killed, its program ends with it, and only then the volume is free.
func TestVolumeOfAKilledShim(t *testing.T) {
	w := newWorld(t, withSecrets)
	w.start("keeps-1", spec("keeps", keeping))
	w.said("keeps-1", "waiting")
	if err := unix.Kill(w.shimPID("keeps-1"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.untilPhase("keeps-1", rollout.Exited)
	if err := w.Remove(t.Context(), "keeps-1"); err != nil {
		t.Fatal(err)
	}
	w.start("keeps-2", spec("keeps", keeping))
	wants(t, w.said("keeps-2", "waiting"), "names: [keeps-1 keeps-2] <nil>")
}

// A shared volume has several holders.
func TestSharedVolume(t *testing.T) {
	w := newWorld(t, withSecrets)
	shared := func(s *release.Spec) {
		keeping(s)
		s.Volumes[0].Mode, s.Volumes[0].Snapshot = release.VolumeShared, false
	}
	w.start("keeps-1", spec("keeps", shared))
	w.said("keeps-1", "waiting")
	w.start("keeps-2", spec("keeps", shared))
	wants(t, w.said("keeps-2", "waiting"), "names: [keeps-1 keeps-2] <nil>")
}

// A secret that cannot be had keeps the instance from starting, and says so.
func TestMissingSecret(t *testing.T) {
	w := newWorld(t, withSecrets)
	err := w.Start(t.Context(), env, order("keeps"), spec("keeps", keeping, func(s *release.Spec) { s.Secrets[0].Version = 2 }))
	if fault.Of(err).Kind != fault.NotFound {
		t.Errorf("%v", err)
	}
}

// A snapshot has what the directory had, or the file system says that it offers none.
func TestSnapshot(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "snapshots", "one")
	if err := errors.Join(os.Mkdir(filepath.Join(from, "d"), 0o750), os.WriteFile(filepath.Join(from, "d", "f"), []byte("x"), 0o640), os.Symlink("d/f", filepath.Join(from, "l"))); err != nil {
		t.Fatal(err)
	}
	err := snapshot(t.Context(), from, to)
	if err != nil {
		if fault.Of(err).Kind != fault.Unavailable {
			t.Fatal(err)
		}
		t.Logf("no reflinks here: %v", err)
		if left, _ := os.ReadDir(filepath.Dir(to)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		return
	}
	if b, err := os.ReadFile(filepath.Join(to, "l")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// On XFS, which offers reflinks, a snapshot is whole, takes no room for the bytes, and stays
// as it is when the volume changes.
func TestSnapshotByReflink(t *testing.T) {
	dir := xfs(t)
	from, to := filepath.Join(dir, "data"), filepath.Join(dir, "snapshots", "one")
	content := bytes.Repeat([]byte("ashlar!\n"), 8<<20)
	if err := errors.Join(os.Mkdir(from, 0o750), os.WriteFile(filepath.Join(from, "f"), content, 0o640), os.Symlink("f", filepath.Join(from, "l"))); err != nil {
		t.Fatal(err)
	}
	before := free(t, dir)
	if err := snapshot(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if took := before - free(t, dir); took > int64(len(content))/8 {
		t.Errorf("the snapshot of %d bytes took %d", len(content), took)
	}
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("other"), 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "l")); err != nil || !bytes.Equal(b, content) {
		t.Errorf("the snapshot has %d bytes, %v", len(b), err)
	}
}

// xfs mounts a file system of its own.
func xfs(t *testing.T) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "xfs"), t.TempDir()
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(512<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// free is the room of a file system, once what is under way is written.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}
