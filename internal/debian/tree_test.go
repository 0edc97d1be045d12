package debian

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestPackagesMeet(t *testing.T) {
	dir := func(p string) member { return member{name: p, typ: tar.TypeDir} }
	for _, c := range []struct {
		name  string
		debs  []deb
		paths map[string]string // path to content, "dir" or "-> target"
		fails []string
	}{
		{
			name:  "two files at one path",
			debs:  []deb{{name: "aa", version: "1", data: []member{{name: "./etc/x", body: "a"}}}, {name: "bb", version: "1", data: []member{{name: "./etc/x", body: "b"}}}},
			fails: []string{"aa and bb both have /etc/x"},
		}, {
			name:  "two files that meet by usrmerge",
			debs:  []deb{{name: "aa", version: "1", data: []member{{name: "./bin/x", body: "a"}}}, {name: "bb", version: "1", data: []member{{name: "./usr/bin/x", body: "b"}}}},
			fails: []string{"aa and bb both have /usr/bin/x"},
		}, {
			name: "replaces, whatever the order",
			debs: []deb{
				{name: "aa", version: "1", fields: "Replaces: bb (<< 2)\n", data: []member{{name: "./x", body: "a"}, {name: "./y", body: "a"}}},
				{name: "bb", version: "1", data: []member{{name: "./x", body: "b"}, {name: "./z", body: "b"}}},
				{name: "cc", version: "1", fields: "Replaces: bb\n", data: []member{{name: "./z", body: "c"}}},
			},
			paths: map[string]string{"x": "a", "y": "a", "z": "c"},
		}, {
			name: "replaces another version",
			debs: []deb{
				{name: "aa", version: "1", fields: "Replaces: bb (<< 1)\n", data: []member{{name: "./x", body: "a"}}},
				{name: "bb", version: "1", data: []member{{name: "./x", body: "b"}}},
			},
			fails: []string{"both have /x"},
		}, {
			name:  "the same file twice",
			debs:  []deb{{name: "aa", version: "1", data: []member{{name: "./x", body: "a"}}}, {name: "bb", version: "1", data: []member{{name: "./x", body: "a"}}}},
			paths: map[string]string{"x": "a"},
		}, {
			name: "another package's link to a directory",
			debs: []deb{
				{name: "aa", version: "1", data: []member{dir("./opt/"), dir("./opt/app/"), {name: "./opt/app/f", body: "f"}}},
				{name: "bb", version: "1", data: []member{{name: "./opt/app", typ: tar.TypeSymlink, link: "../srv/app"}}},
			},
			paths: map[string]string{"opt/app": "-> ../srv/app", "srv/app/f": "f", "srv/app": "dir"},
		}, {
			name: "another package's link out of the root stays inside",
			debs: []deb{
				{name: "aa", version: "1", data: []member{{name: "./opt/app/f", body: "f"}}},
				{name: "bb", version: "1", data: []member{{name: "./opt/app", typ: tar.TypeSymlink, link: "../../../../tmp/x"}}},
			},
			paths: map[string]string{"tmp/x/f": "f"},
		}, {
			name: "a file below another package's file",
			debs: []deb{
				{name: "aa", version: "1", data: []member{{name: "./x/f", body: "f"}}},
				{name: "bb", version: "1", data: []member{{name: "./x", body: "b"}}},
			},
			fails: []string{"x"},
		}, {
			name: "links that lead in a circle",
			debs: []deb{
				{name: "aa", version: "1", data: []member{{name: "./x", typ: tar.TypeSymlink, link: "y"}, {name: "./y", typ: tar.TypeSymlink, link: "x"}}},
				{name: "bb", version: "1", data: []member{{name: "./x/f", body: "f"}}},
			},
			fails: []string{"symbolic links"},
		}, {
			name: "a directory's own mode wins over the usual one",
			debs: []deb{
				{name: "aa", version: "1", data: []member{dir("./d/")}},
				{name: "bb", version: "1", data: []member{{name: "./d/", typ: tar.TypeDir, mode: 0o750}}},
			},
			paths: map[string]string{"d": "dir"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t, c.debs...)
			var names []string
			for _, d := range c.debs {
				names = append(names, d.name)
			}
			_, tree, err := a.build(t, a.source(names...))
			if c.fails != nil {
				wantFault(t, err, fault.Invalid, c.fails...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for p, want := range c.paths {
				e, _ := tree.Lookup(p)
				got := string(e.Type)
				switch e.Type {
				case image.Symlink:
					got = "-> " + e.Link
				case image.File:
					if got = want; e.Digest != digest.FromString(want) {
						got = "other content"
					}
				}
				if got != want {
					t.Errorf("%s is %q, want %q", p, got, want)
				}
			}
		})
	}
}

func TestScriptsNeedARuleOrAWaiver(t *testing.T) {
	a := newArchive(t,
		deb{name: "odd", version: "1", scripts: map[string]string{"postinst": "#!/bin/sh\nset -e\nrm -rf /\n"}},
		deb{name: "odder", version: "2", scripts: map[string]string{"preinst": "#!/usr/bin/perl\nprint 1;\n"}},
		deb{name: "tame", version: "1", scripts: map[string]string{"postinst": "#!/bin/sh\nset -e\n\nexit 0\n"}})
	src := a.source("odd", "odder", "tame")
	_, _, err := a.build(t, src)
	wantFault(t, err, fault.Refused, "package odd 1 has a postinst script that no rule stands for", `"rm -rf /"`, "waive: {odd:", "package odder 2 has a preinst")
	src.Waive = map[string]string{"odd": "not needed", "odder": "neither"}
	if _, _, err := a.build(t, src); err != nil {
		t.Error(err)
	}
	src.Waive["tamed"] = "a slip"
	_, _, err = a.build(t, src)
	wantFault(t, err, fault.Invalid, "waived package tamed is not among")
}

const known = `#!/bin/sh
set -e
# a comment
case "$1" in
  configure)
  ;;
  abort-upgrade|abort-remove|abort-deconfigure)
  ;;
  *)
    echo "postinst called with unknown argument \` + "`" + `$1'" >&2
    exit 1
  ;;
esac
# Automatically added by dh_installsystemd/13.11.4
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
	# a comment
	deb-systemd-helper unmask 'app.service' >/dev/null || true
	if deb-systemd-helper --quiet was-enabled 'app.service'; then
		deb-systemd-helper enable 'app.service' >/dev/null || true
	else
		deb-systemd-helper update-state 'app.service' >/dev/null || true
	fi
fi
# End automatically added section
# Automatically added by dh_installalternatives/13.7.1
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ]; then
        update-alternatives --install /usr/bin/awk awk /usr/bin/app 5 \
            --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/app.1.gz
fi
# End automatically added section
# Automatically added by dh_installtmpfiles/13.11.4
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
	if [ -x "$(command -v systemd-tmpfiles)" ]; then
		systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create app.conf >/dev/null || true
	fi
fi
# End automatically added section
# Automatically added by dh_installsysusers/13.11.4
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
   systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} app.conf
fi
# End automatically added section
# Automatically added by dh_installdeb/13.11.4
dpkg-maintscript-helper rm_conffile /etc/app.old 1:4.7-2\~ -- "$@"
# End automatically added section
# Automatically added by dh_python3
if command -v py3compile >/dev/null 2>&1; then
	py3compile -p app /usr/share/app -V 3.11-
fi
# End automatically added section
exit 0
`

func TestRecognise(t *testing.T) {
	e, line := recognise(known)
	want := effect{
		alternatives: []Alternative{{Link: "/usr/bin/awk", Name: "awk", Path: "/usr/bin/app", Priority: "5",
			Slaves: []Alternative{{Link: "/usr/share/man/man1/awk.1.gz", Name: "awk.1.gz", Path: "/usr/share/man/man1/app.1.gz"}}}},
		tmpfiles: []string{"app.conf"}, sysusers: []string{"app.conf"},
	}
	if diff := cmp.Diff(want, e, cmp.AllowUnexported(effect{})); diff != "" || line != "" {
		t.Errorf("line %q, %s", line, diff)
	}
	block := func(tool, body string) string {
		return "#!/bin/sh\n# Automatically added by " + tool + "/13\n" + body + "\n# End automatically added section\n"
	}
	for _, bad := range []string{
		"rm -rf /", "set -e; rm x", "exit 0; rm x", "case $(rm x) in", "configure) rm x", ": > /etc/x", "cat <<EOF\nset -e\nEOF",
		block("dh_unknown", "fi"), block("dh_installsystemd", "rm -rf /"), block("dh_installdeb", "fi"),
		block("dh_installsystemd", "deb-systemd-helper enable 'x'$(rm x) >/dev/null || true"),
		block("dh_installsystemd", "systemctl daemon-reload >/dev/null || true; rm x"),
		block("dh_installalternatives", "update-alternatives --install /a $(b) /c 1"),
		block("dh_installdeb", "dpkg-maintscript-helper rm_conffile $(x) -- \"$@\""),
		strings.Replace(known, "py3compile -p app", "py3compile -p `id`", 1),
		block("dh_installmenu", "fi") + "update-menus",
	} {
		if _, line := recognise(bad); line == "" {
			t.Errorf("taken for harmless:\n%s", bad)
		}
	}
}

func TestKnownBlocksHaveTheirEffect(t *testing.T) {
	a := newArchive(t, deb{name: "app", version: "1", scripts: map[string]string{"postinst": known}, data: []member{
		{name: "./usr/bin/app", mode: 0o755, body: "app"},
		{name: "./usr/share/man/man1/app.1.gz", body: "man"},
		{name: "./usr/lib/sysusers.d/app.conf", body: "# users\nu app - \"The App\" /var/lib/app\ng extra 77\nm app extra\nu fixed 88 \"-\" - /bin/sh\n"},
		{name: "./usr/lib/tmpfiles.d/app.conf", body: "d /run/app 2750 app extra -\nr! /etc/lock\nf /var/log/app.log 0640 app - -\nL /etc/app - - - - /usr/share/app\n"},
	}})
	_, tree, err := a.build(t, a.source("app"))
	if err != nil {
		t.Fatal(err)
	}
	uid := tree.Entries[slices.IndexFunc(tree.Entries, func(e image.Entry) bool { return e.Path == "run/app" })].UID
	if uid < firstFree || uid > lastFree {
		t.Errorf("uid %d", uid)
	}
	for path, want := range map[string]image.Entry{
		"run/app":              {Type: image.Dir, Mode: 0o2750, UID: uid, GID: 77},
		"var/log/app.log":      {Type: image.File, Mode: 0o640, UID: uid},
		"etc/app":              {Type: image.Symlink, Mode: 0o777, Link: "/usr/share/app"},
		"usr/bin/awk":          {Type: image.Symlink, Mode: 0o777, Link: "/etc/alternatives/awk"},
		"etc/alternatives/awk": {Type: image.Symlink, Mode: 0o777, Link: "/usr/bin/app"},
	} {
		e, _ := tree.Lookup(path)
		if got := (image.Entry{Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, Link: e.Link}); !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

// TestSameTreeEverywhere builds twice with all that must not matter changed.
func TestSameTreeEverywhere(t *testing.T) {
	debs := []deb{
		{name: "bash", version: "5", scripts: map[string]string{"postinst": "anything"}, data: []member{
			{name: "./bin/bash", mode: 0o755, body: "bash"}, {name: "./usr/share/man/man7/bash-builtins.7.gz", body: "m"}}},
		{name: "redis-tools", version: "7", scripts: map[string]string{"postinst": "anything"}, data: []member{{name: "./usr/bin/redis-cli", mode: 0o755, body: "cli"}}},
		{name: "app", version: "1", scripts: map[string]string{"postinst": known}, data: []member{
			{name: "./usr/bin/app", body: "x"}, {name: "./usr/lib/sysusers.d/app.conf", body: "u one -\nu two -\nu three -\n"}, {name: "./usr/lib/tmpfiles.d/app.conf"}}},
	}
	a := newArchive(t, debs...)
	_, first, err := a.build(t, a.source("app", "bash", "redis-tools"))
	if err != nil {
		t.Fatal(err)
	}
	local := time.Local
	time.Local = time.FixedZone("far", 13*3600)
	old := syscall.Umask(0o077)
	defer func() { time.Local = local; syscall.Umask(old) }()
	slices.Reverse(debs)
	var text []string
	for _, d := range debs {
		text = append(text, d.name)
	}
	for range 3 {
		b := newArchive(t, debs...) // another key, its index in another order
		_, again, err := b.build(t, b.source(text...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("the same packages gave another tree: %s", diff)
		}
		if !bytes.Equal(first.Marshal(), again.Marshal()) {
			t.Fatal("the encodings differ")
		}
	}
}

// TestTreeDecodesNothingTwice takes the .debs away, and later a file.
func TestTreeDecodesNothingTwice(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	store := openStore(t)
	src := a.source("app")
	lock := a.fetched(t, store, src)
	first, err := Tree(t.Context(), store, lock, src)
	if err != nil {
		t.Fatal(err)
	}
	src.Progress = func(p Progress) { t.Errorf("%s %s", p.Step, p.What) }
	again := func(src Source) image.Tree {
		t.Helper()
		made, err := Tree(t.Context(), store, lock, src)
		if err != nil {
			t.Fatal(err)
		}
		return made.Tree
	}
	if diff := cmp.Diff(first.Tree, again(src)); diff != "" {
		t.Error(diff)
	}
	waived := src
	waived.Waive = map[string]string{"app": "another key, so that the packages are merged anew"}
	if diff := cmp.Diff(first.Tree, again(waived)); diff != "" {
		t.Error(diff)
	}
	for _, kind := range []string{inputRef, unpackedRef, closureRef} {
		refs, err := store.Refs(kind)
		if err != nil {
			t.Fatal(err)
		}
		for name := range refs {
			if err := os.Chtimes(filepath.Join(filepath.Dir(store.Path()), "refs", kind, name), testNow, testNow); err != nil {
				t.Fatal(err)
			}
		}
	}
	again(src)
	for kind, want := range map[string]int{inputRef: 4, unpackedRef: 2, closureRef: 1} {
		refs, err := store.Refs(kind)
		if err != nil {
			t.Fatal(err)
		}
		for name := range refs {
			if used, err := store.RefTime(kind, name); err == nil && used.After(testNow) {
				want--
			}
		}
		if want != 0 {
			t.Errorf("%d references of kind %s are not noted as used", want, kind)
		}
	}
	lost, _ := first.Tree.Lookup("usr/bin/app")
	if err := store.Remove(lost.Digest); err != nil {
		t.Fatal(err)
	}
	var unpacked []string
	src.Progress = func(p Progress) { unpacked = append(unpacked, p.Step+" "+p.What) }
	if diff := cmp.Diff(first.Tree, again(src)); diff != "" || !store.Has(lost.Digest) {
		t.Errorf("a lost file did not come back: %s", diff)
	}
	if diff := cmp.Diff([]string{"unpack app 1.0-1"}, unpacked); diff != "" {
		t.Error(diff)
	}
}

// TestLockCallsAPackageByAnotherVersion: whoever edits the lock cannot have the ledger
// tell of a version that has no holes, be the package unpacked before or not.
func TestLockCallsAPackageByAnotherVersion(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	for _, before := range []bool{false, true} {
		store := openStore(t)
		src := a.source("app")
		lock, err := Resolve(t.Context(), store, src, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := Fetch(t.Context(), store, lock, a, nil); err != nil {
			t.Fatal(err)
		}
		if before {
			if _, err := Tree(t.Context(), store, lock, src); err != nil {
				t.Fatal(err)
			}
		}
		i := slices.IndexFunc(lock.Packages, func(p LockedPackage) bool { return p.Name == "app" })
		lock.Packages[i].Version = "9.9-9"
		_, err = Tree(t.Context(), store, lock, src)
		wantFault(t, err, fault.Refused, "the file of package app 9.9-9 (amd64) holds app 1.0-1")
		t.Attr("refused", fmt.Sprintf("holds <- the lock calls a package by another version (unpacked before: %t)", before))
	}
}

func TestFileHoldsAnotherPackageThanItsIndexSays(t *testing.T) {
	imposter := deb{name: "evil", version: "1"}.bytes(t)
	a := newArchive(t, deb{name: "app", version: "1", raw: imposter})
	_, _, err := a.build(t, a.source("app"))
	wantFault(t, err, fault.Refused, "package app 1 (amd64) holds evil 1")
}

func TestEveryTreeHasAccountsAndDirectories(t *testing.T) {
	a := newArchive(t, deb{name: "app", version: "1", data: []member{{name: "./late", body: "x"}}})
	store := openStore(t)
	lock := a.fetched(t, store, a.source("app"))
	made, err := Tree(t.Context(), store, lock, a.source("app"))
	if err != nil {
		t.Fatal(err)
	}
	tree := made.Tree
	for _, p := range []string{"proc", "sys", "dev", "tmp", "etc/passwd", "etc/group", "bin", "usr/bin", "run", "etc/os-release"} {
		if _, ok := tree.Lookup(p); !ok {
			t.Errorf("%s is missing", p)
		}
	}
	for _, e := range tree.Entries {
		if e.MTime != lock.Epoch {
			t.Errorf("%s was modified at %d, not at the lock's epoch", e.Path, e.MTime)
		}
	}
	e, _ := tree.Lookup("usr/lib/os-release")
	f, err := store.Open(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(f)
	if err != nil || !strings.Contains(string(text), "VERSION_CODENAME=test\n") || !strings.Contains(string(text), "ID=debian\n") {
		t.Errorf("os-release: %s %v", text, err)
	}
}

// TestRulesAreVersioned fails when a rule changes without a new number in its name:
// trees that are cached under the old one would not be made again.
func TestRulesAreVersioned(t *testing.T) {
	lines := map[string]string{}
	owner := map[string]string{}
	for _, r := range Rules() {
		if _, twice := lines[r.Name]; twice || r.Why == "" {
			t.Errorf("rule %s stands twice or has no reason", r.Name)
		}
		for _, p := range r.Packages {
			if owner[p] != "" {
				t.Errorf("package %s has two rules, %s and %s", p, owner[p], r.Name)
			}
			owner[p] = r.Name
		}
		r.Why = ""
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines[r.Name] = fmt.Sprintf("%s %s\n", r.Name, digest.FromBytes(b).Encoded()[:16])
	}
	var got strings.Builder
	for _, n := range slices.Sorted(maps.Keys(lines)) {
		got.WriteString(lines[n])
	}
	all := &assembly{}
	var err error
	if all.accounts, err = newAccounts(basePasswd, baseGroup); err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules() {
		if err := all.addAccounts(r); err != nil {
			t.Errorf("rule %s: %v", r.Name, err)
		}
	}
	const golden = "testdata/rules.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("a rule changed: raise its number, then run  go test -run Rules -update ./internal/debian\n%s", diff)
	}
}
