package minimal_test

import (
	"bytes"
	"debug/elf"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/minimal"
)

// world is a tree whose files have owners and say what they need.
type world struct {
	entries []image.Entry
	owner   map[string]string
	elf     map[string]*minimal.ELF
}

func (w *world) file(owner, p string, f *minimal.ELF) {
	w.entries = append(w.entries, image.Entry{Path: p, Type: image.File, Mode: 0o755, Size: 1})
	w.owner[p], w.elf[p] = owner, f
}

func (w *world) link(owner, p, to string) {
	w.entries = append(w.entries, image.Entry{Path: p, Type: image.Symlink, Mode: 0o777, Link: to})
	w.owner[p] = owner
}

func needs(names ...string) *minimal.ELF {
	return &minimal.ELF{Class: elf.ELFCLASS64, Machine: elf.EM_X86_64, Needed: names}
}

func (w *world) choose(keep ...string) ([]string, error) {
	t := image.Sorted(w.entries).WithParents(0)
	want := minimal.Want{Owner: func(i int) string { return w.owner[t.Entries[i].Path] }, Packages: []string{"app"}, Keep: keep}
	stays, err := minimal.Select(t, want, func(e image.Entry) (*minimal.ELF, error) { return w.elf[e.Path], nil })
	var out []string
	for _, i := range stays {
		if t.Entries[i].Type != image.Dir {
			out = append(out, t.Entries[i].Path)
		}
	}
	return out, err
}

func newWorld() *world { return &world{owner: map[string]string{}, elf: map[string]*minimal.ELF{}} }

// What remains of a tree: links on the way, search paths, what rules made.
func TestSelect(t *testing.T) {
	w := newWorld()
	app := needs("liba.so.1", "libown.so")
	app.Interpreter, app.RunPath = "/lib64/ld.so", []string{"$ORIGIN/../lib/app"}
	w.link("", "bin", "usr/bin")
	w.link("", "lib", "usr/lib")
	w.link("", "lib64", "usr/lib64")
	w.link("app", "usr/bin/app", "tool")
	w.file("tools", "usr/bin/tool", app)
	w.file("tools", "usr/bin/other", needs("libunused.so"))
	w.file("c", "usr/lib64/ld.so", needs())
	w.file("a", "usr/lib/app/liba.so.1", needs("libelsewhere.so")) // of another machine, and no ELF file for the loader
	w.elf["usr/lib/app/liba.so.1"].Machine = elf.EM_AARCH64
	w.link("a", "usr/lib/x86_64-linux-gnu/liba.so.1", "liba.so.1.2")
	w.file("a", "usr/lib/x86_64-linux-gnu/liba.so.1.2", needs("libb.so"))
	w.file("b", "usr/lib/x86_64-linux-gnu/libb.so", needs())
	w.file("own", "usr/lib/app/libown.so", needs())
	w.file("unused", "usr/lib/libunused.so", needs())
	w.file("a", "usr/share/doc/a/copyright", nil)
	w.file("unused", "usr/share/doc/unused/copyright", nil)
	w.file("a", "usr/share/a/data", nil)
	w.file("", "etc/passwd", nil)
	w.link("", "etc/alternatives/o", "/usr/bin/other")
	w.link("", "etc/alternatives/t", "/bin/tool")
	got, err := w.choose()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bin", "etc/alternatives/t", "etc/passwd", "lib", "lib64", "usr/bin/app", "usr/bin/tool", "usr/lib/app/libown.so",
		"usr/lib/x86_64-linux-gnu/liba.so.1", "usr/lib/x86_64-linux-gnu/liba.so.1.2", "usr/lib/x86_64-linux-gnu/libb.so",
		"usr/lib64/ld.so", "usr/share/doc/a/copyright",
	}
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	got, err = w.choose("bin/oth*")
	if err != nil || !slices.Contains(got, "usr/bin/other") || !slices.Contains(got, "usr/lib/libunused.so") || !slices.Contains(got, "etc/alternatives/o") {
		t.Errorf("what is kept comes with what it needs: %v, %v", got, err)
	}
	if _, err := w.choose("usr/nothing/*"); err == nil || !strings.Contains(err.Error(), `nothing in the packages matches "/usr/nothing/*"`) {
		t.Errorf("a glob without a match: %v", err)
	}
}

// DT_RPATH is for the libraries of a library too, DT_RUNPATH is not.
func TestSearchPaths(t *testing.T) {
	for _, c := range []struct{ rpath, runpath []string }{{rpath: []string{"/opt"}}, {runpath: []string{"/opt"}}} {
		w := newWorld()
		app := needs("liba.so")
		app.RPath, app.RunPath = c.rpath, c.runpath
		between := needs("libc.so")
		between.RunPath = []string{"/none:/opt"} // the program's own DT_RPATH still counts for what it loads
		w.file("app", "usr/bin/app", app)
		w.file("a", "opt/liba.so", needs("libb.so", "libm.so"))
		w.file("m", "usr/lib/libm.so", between)
		w.file("c", "opt/libc.so", needs("libb.so"))
		w.file("b", "opt/libb.so", needs())
		_, err := w.choose()
		if c.rpath != nil && err != nil {
			t.Errorf("with DT_RPATH: %v", err)
		}
		if c.runpath != nil && (err == nil || !strings.Contains(err.Error(), "/opt/liba.so needs libb.so")) {
			t.Errorf("with DT_RUNPATH: %v", err)
		}
	}
}

// All that is missing is named with who needs it.
func TestMissing(t *testing.T) {
	w := newWorld()
	app := needs("liba.so", "libb.so")
	app.Interpreter = "/lib64/ld.so"
	w.file("app", "usr/bin/app", app)
	_, err := w.choose()
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{"/usr/bin/app needs liba.so", "/usr/bin/app needs libb.so", "/usr/bin/app needs /lib64/ld.so", "/usr/lib/x86_64-linux-gnu"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
}

// A real executable: this test's, or the shell's, which is linked with the C library.
func TestRead(t *testing.T) {
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	got, err := minimal.Read(f)
	if err != nil || got == nil || !slices.Contains(got.Needed, "libc.so.6") || !strings.HasPrefix(got.Interpreter, "/lib") {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := minimal.Read(strings.NewReader("#!/bin/sh\n")); got != nil || err != nil {
		t.Errorf("a script: %+v, %v", got, err)
	}
	if got, err := minimal.Read(strings.NewReader(elf.ELFMAG + "x")); got != nil || err == nil {
		t.Errorf("a damaged file: %+v, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:min(len(b), 4096)])
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = minimal.Read(bytes.NewReader(b)) })
}
