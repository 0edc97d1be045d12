package build_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/debian"
)

// example copies an example to a directory of its own, so that its lock file is not touched.
func example(t *testing.T, name string) *project {
	t.Helper()
	p := newProject(t, nil)
	if err := os.CopyFS(p.dir, os.DirFS(filepath.Join("..", "..", "examples", name))); err != nil {
		t.Fatal(err)
	}
	return p
}

// The whole path on the real archive, which is the host's own: resolved and
// fetched once, then built again elsewhere, then without network.
func TestSiteFromTheArchive(t *testing.T) {
	first := example(t, "site")
	first.b.Fetcher = debian.NewHTTP()
	first.b.Now = nil
	a := first.mustRelease()
	s := a.Environments["production"].Components["web"].Spec
	if s.UID != 33 || s.GID != 33 || s.Command[0] != "/usr/sbin/nginx" {
		t.Errorf("www-data and nginx are not found: %+v", s)
	}

	second := example(t, "site")
	lock, err := build.ReadLockFile(first.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Write(second.dir); err != nil {
		t.Fatal(err)
	}
	second.b.Fetcher, second.b.Locked = debian.NewHTTP(), true
	if d := cmp.Diff(a, second.mustRelease()); d != "" {
		t.Errorf("built elsewhere from the same lock (-first +second):\n%s", d)
	}

	first.b.Fetcher = noNetwork{t}
	first.events.made()
	if d := cmp.Diff(a, first.mustRelease()); d != "" {
		t.Errorf("built again without network:\n%s", d)
	}
	first.replace("www/index.html", "version v1", "version v2")
	b := first.mustRelease()
	if b.Environments["production"].Components["web"].Spec.Tree == s.Tree {
		t.Error("a changed page gave the same sealed tree")
	}
	first.b.Locked = true
	first.replace("ashlar.yaml", "[nginx-light]", "[nginx-light, no-such-package]")
	_, err = first.release()
	wantFault(t, err, "conflict", "no-such-package", "--locked")
	first.b.Locked, first.b.Fetcher = false, debian.NewHTTP()
	_, err = first.release()
	wantFault(t, err, "not-found", "no-such-package", "ashlar.yaml:")
}
