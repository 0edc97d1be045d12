package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const smallDisk = 64 << 20 // bytes

// A disk that is full while a release is built, begun or under way: the command
// says so, the release before goes on serving, nothing is corrupt, and with space
// things go on.
func TestDiskFull(t *testing.T) {
	a := newHostIn(t, disk(t)).guest()
	a.edit("ashlar.yaml", "    run:\n", "      - files: {from: data/**, to: /data/}\n    run:\n")
	a.fill(filepath.Join(a.dir, "data"), "small", 1<<10)
	a.deploy()
	run := a.load(100, "Mark")

	a.fullWhileBuilding()
	a.fullWhileBeginning()
	a.fullWhileRolling()

	a.unharmed(run)
	a.oneRelease("3")
	a.ashlar("seal", "verify", "production/web").ok().says("is intact")
	a.ashlar("log", "verify").ok().says("the record is intact")
}

// disk makes a small file system of its own and gives its directory. It is on a
// loop device: EROFS cannot be mounted from files on tmpfs.
func disk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ash")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	device := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(device, smallDisk); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m0", device}, {"mount", "-o", "loop", device, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fullWhileBuilding builds what does not fit.
func (a *app) fullWhileBuilding() {
	a.t.Helper()
	before := a.free()
	for i := range 4 {
		a.fill(filepath.Join(a.dir, "data"), fmt.Sprint("big", i), smallDisk/3)
	}
	a.ashlar("deploy", "production", "--yes").failed(6, "the disk is full", a.host.dir, "ashlar gc")
	for i := range 4 {
		a.remove(filepath.Join(a.dir, "data", fmt.Sprint("big", i)))
	}
	if lost := before - a.free(); lost > 1<<20 {
		a.t.Errorf("the build that did not fit left %d bytes", lost)
	}
	a.ashlar("seal", "verify", "production/web").ok()
	a.ashlar("deploy", "production", "--yes").ok().says("nothing to change")
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
	a.deploy()
	a.oneRelease("1")
}

// fullWhileBeginning deploys a release that has no room in the server's database.
// There is always some there for small ones; large values see to it.
func (a *app) fullWhileBeginning() {
	a.t.Helper()
	large := `MARK: "2"`
	for i := range 8 {
		large += fmt.Sprintf(", LARGE%d: %s", i, strings.Repeat("x", 100<<10))
	}
	a.edit("ashlar.yaml", `MARK: "1"`, large)
	a.ashlar("plan", "production").ok()
	a.fill(a.host.dir, "filler", smallDisk)
	r := a.ashlar("deploy", "production", "--yes")
	r.shows(r.stderr, "no space left", a.host.dir, "ashlar gc")
	if r.code != 6 {
		a.t.Errorf("exit status %d, 6 is expected: %s", r.code, r.stderr)
	}
	a.oneRelease("1")
	a.remove(filepath.Join(a.host.dir, "filler"))
	a.edit("ashlar.yaml", large, `MARK: "2"`)
	a.deploy()
	a.oneRelease("2")
}

// fullWhileRolling fills the disk once a rollout is in flight. If it cannot go on it
// says so, and does when there is room.
func (a *app) fullWhileRolling() {
	a.t.Helper()
	a.edit("ashlar.yaml", `MARK: "2"`, `MARK: "3", START_MS: "1000"`)
	deploy := a.background("deploy", "production", "--yes")
	a.await("a rollout to begin", func() error { return a.inFlight(a.t.Context()) })
	a.fill(a.host.dir, "filler", smallDisk)
	a.await("the rollout to end, or the server to say why it does not", func() error {
		if s := a.status(); s.State.Rollout != nil && !isFull(strings.Join(s.Problems, "\n")) {
			return errNotYet
		}
		return nil
	})
	a.t.Logf("on the full disk: %s", a.ashlar("status", "production").ok().stdout)
	a.remove(filepath.Join(a.host.dir, "filler"))
	if r := deploy(); r.code != 0 && (r.code != 5 || !isFull(r.stderr)) {
		a.t.Errorf("the deploy whose disk was full: %s", r)
	}
	a.settled()
	a.deploy()
}

// fill writes a file of random bytes, or of as many as there is space for.
func (a *app) fill(dir, name string, size int64) {
	a.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		a.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	_, err = io.CopyN(f, rand.Reader, size)
	for errors.Is(err, syscall.ENOSPC) { // to the last block
		if _, err = f.Write(make([]byte, 1<<10)); err != nil {
			break
		}
		err = syscall.ENOSPC
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		a.t.Fatal(err)
	}
}

func isFull(said string) bool {
	return strings.Contains(said, syscall.ENOSPC.Error()) || strings.Contains(said, "disk is full")
}

func (a *app) remove(file string) {
	a.t.Helper()
	if err := os.Remove(file); err != nil {
		a.t.Fatal(err)
	}
}

// free is the space left in the state directory, in bytes.
func (a *app) free() int64 {
	a.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(a.host.dir, &st); err != nil {
		a.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
