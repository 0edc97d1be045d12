package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
)

// gc takes away what no kept release needs; what it keeps can be rolled back to,
// and what it took away says so until it is built again.
func TestGC(t *testing.T) {
	a := newHost(t).guest()
	a.edit("ashlar.yaml", "    run:\n", "      - files: {from: data/**, to: /data/}\n    run:\n")
	a.fill(filepath.Join(a.dir, "data"), "block", 2<<20)
	first, err := os.ReadFile(filepath.Join(a.dir, "data/block"))
	if err != nil {
		t.Fatal(err)
	}
	a.deploy()
	for range 4 {
		a.fill(filepath.Join(a.dir, "data"), "block", 2<<20)
		a.deploy()
	}
	a.ageBuilds(400 * 24 * time.Hour) // what recent builds used stays in any case
	run := a.load(100, "Mark")

	var would, did api.GCReport
	a.ashlar("gc", "--keep", "2", "--dry-run", "-o", "json").into(&would)
	a.ashlar("gc", "--keep", "2", "-o", "json").into(&did)
	if would.Removed != did.Removed || would.Kept != did.Kept {
		t.Errorf("gc said %+v would go, and %+v went", would.Removed, did.Removed)
	}
	if did.Removed.Bytes < 6<<20 || did.Removed.Bytes > 8<<20 {
		t.Errorf("3 releases with 2 MiB each of their own were to go; %d bytes went", did.Removed.Bytes)
	}
	if on := a.onDisk(); on.Objects != did.Kept.Objects {
		t.Errorf("%d objects are there, %d were kept", on.Objects, did.Kept.Objects)
	}
	if got := numbers(did.Releases); !slices.Equal(got, []int{4, 5}) {
		t.Errorf("kept are %v", got)
	}
	a.ashlar("seal", "verify", "production/web").ok()
	a.ashlar("history").ok().says("collected: a build brings it back")

	a.ashlar("rollback", "production", "-y").ok().says("release 4 is live")
	a.ashlar("rollback", "production", "1", "-y").failed(5, "not on hand", "not in the object store", "ashlar deploy")
	if n := a.settled().State.Current.Number; n != 4 {
		t.Errorf("a refused rollback left release %d live", n)
	}
	a.ashlar("rollback", "production", "5", "-y").ok().says("release 5 is live")

	if err := os.WriteFile(filepath.Join(a.dir, "data/block"), first, 0o644); err != nil {
		t.Fatal(err)
	}
	a.deploy().says("release 1 is live")
	a.unharmed(run)
	a.ashlar("log", "verify").ok()
}

// ageBuilds makes the build cache as old as if nothing had been built for so long.
func (h *host) ageBuilds(by time.Duration) {
	h.t.Helper()
	at := time.Now().Add(-by)
	err := filepath.WalkDir(filepath.Join(h.dir, "refs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) onDisk() api.Amount {
	h.t.Helper()
	var sum api.Amount
	err := filepath.WalkDir(filepath.Join(h.dir, "objects"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum.Objects++
			sum.Bytes += info.Size()
		}
		return err
	})
	if err != nil {
		h.t.Fatal(fmt.Errorf("count the objects: %w", err))
	}
	return sum
}

func numbers(releases []api.ReleaseRef) []int {
	var out []int
	for _, r := range releases {
		out = append(out, r.Number)
	}
	slices.Sort(out)
	return out
}
