package seal

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
)

func settingsBase() image.Tree {
	return image.Sorted([]image.Entry{
		{Path: "run", Type: image.Symlink, Mode: 0o777, Link: "var/run"},
		{Path: "var/run", Type: image.Dir, Mode: 0o700, UID: 5, MTime: 3},
		{Path: "etc/resolv.conf", Type: image.Symlink, Mode: 0o777, Link: "/run/resolved/stub.conf"},
		{Path: "etc/enabled", Type: image.Symlink, Mode: 0o777, Link: "available"},
		{Path: "etc/file", Type: image.File, Mode: 0o600, Digest: digest.FromString("")},
		{Path: "loop", Type: image.Symlink, Mode: 0o777, Link: "loop"},
	}).WithParents(42)
}

func config(path string) release.ConfigFile {
	return release.ConfigFile{Path: path, Digest: digest.FromString("x"), Size: 1, Mode: 0o644}
}

func TestSettingsTree(t *testing.T) {
	got, err := SettingsTree(settingsBase(), release.Spec{Files: []release.ConfigFile{config("/run/app/conf"), config("/etc/enabled")}, Tmpfs: []release.Tmpfs{{Path: "/run/cache"}}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range got.Entries {
		lines = append(lines, e.Path+" "+string(e.Type))
		if e.Path != "var/run" && e.MTime != 42 {
			t.Errorf("%s: time %d, want the base's", e.Path, e.MTime)
		}
	}
	want := []string{
		". dir", "dev dir", "etc dir", "etc/enabled file", "etc/hostname file", "etc/hosts file", "proc dir", "sys dir",
		"var dir", "var/run dir", "var/run/app dir", "var/run/app/conf file", "var/run/cache dir",
		"var/run/resolved dir", "var/run/resolved/stub.conf file",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	base, _ := settingsBase().Lookup("var/run")
	if e, _ := got.Lookup("var/run"); !cmp.Equal(e, base) {
		t.Errorf("var/run is %v, want what the base has: %v", e, base)
	}
}

// TestSettingsTreeMounts holds that volumes and secrets have something to be mounted
// over, but for a secret within another mount.
func TestSettingsTreeMounts(t *testing.T) {
	got, err := SettingsTree(settingsBase(), release.Spec{
		Volumes: []release.Mount{{Path: "/var/lib/data"}, {Path: "/srv"}},
		Secrets: []release.Secret{{Path: "/run/secrets/key"}, {Path: "/etc/file"}, {Path: "/srv/key"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]image.Type{"var/lib/data": image.Dir, "srv": image.Dir, "var/run/secrets/key": image.File, "etc/file": image.File, "srv/key": ""}
	for path, kind := range want {
		e, _ := got.Lookup(path)
		if e.Type != kind || kind == image.File && (e.Size != 0 || e.Mode != 0o400) {
			t.Errorf("%s is %+v, want an empty %q", path, e, kind)
		}
	}
	for name, spec := range map[string]release.Spec{
		"a secret for a directory": {Secrets: []release.Secret{{Path: "/etc"}}},
		"a secret and a file":      {Secrets: []release.Secret{{Path: "/run/x"}}, Files: []release.ConfigFile{config("/var/run/x")}},
		"a volume over a file":     {Volumes: []release.Mount{{Path: "/etc/file"}}},
	} {
		_, err := SettingsTree(settingsBase(), spec)
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid {
			t.Errorf("%s: %v, want an Invalid fault", name, err)
		}
	}
}

func TestSettingsTreeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files []release.ConfigFile
		tmpfs []release.Tmpfs
	}{
		"a file for a directory": {files: []release.ConfigFile{config("/etc")}},
		"a file for the root":    {files: []release.ConfigFile{config("/")}},
		"a file under a file":    {files: []release.ConfigFile{config("/etc/file/x")}},
		"a new file under a new": {files: []release.ConfigFile{config("/etc/new"), config("/etc/new/x")}},
		"two files, one place":   {files: []release.ConfigFile{config("/run/x"), config("/var/run/x")}},
		"a file under a tmpfs":   {[]release.ConfigFile{config("/run/c/x")}, []release.Tmpfs{{Path: "/var/run/c"}}},
		"a file under /proc":     {files: []release.ConfigFile{config("/proc/x")}},
		"a loop":                 {files: []release.ConfigFile{config("/loop/x")}},
		"a tmpfs over a file":    {tmpfs: []release.Tmpfs{{Path: "/etc/file"}}},
		"a tmpfs over the root":  {tmpfs: []release.Tmpfs{{Path: "/"}}},
	} {
		_, err := SettingsTree(settingsBase(), release.Spec{Files: c.files, Tmpfs: c.tmpfs})
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid {
			t.Errorf("%s: %v, want an Invalid fault", name, err)
		}
	}
}

func TestSettingsTreeDoesNotDependOnOrder(t *testing.T) {
	files := []release.ConfigFile{config("/a/b"), config("/c"), config("/run/z")}
	one, err := SettingsTree(settingsBase(), release.Spec{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	two, err := SettingsTree(settingsBase(), release.Spec{Files: files})
	if diff := cmp.Diff(one, two); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}
