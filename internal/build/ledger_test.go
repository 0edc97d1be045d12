package build_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// layered is a program and files that are put through a symbolic link of another source.
func layered() map[string]string {
	files := two()
	files["ashlar.yaml"] = `
app: two
components:
  api:
    build:
      - files: {from: "tree/**", to: /}
      - go: {package: ./cmd/api, to: /bin/api}
      - files: {from: "www/**", to: /bin/www/, exclude: ["**/*.bak"]}
    run: {command: [/bin/api]}
environments:
  production: {}
`
	files["tree/usr/bin/tool"] = "tool\n"
	return files
}

// read gives the ledger of a component, which is held against its sealed tree.
func (p *project) read(component string) *ledger.Book {
	p.t.Helper()
	c := p.mustRelease().Environments["production"].Components[component]
	b, err := ledger.Read(p.b.Objects, c.Ledger)
	if err != nil {
		p.t.Fatal(err)
	}
	if b.Ledger.Artifact != c.Spec.Artifact || b.Ledger.Seal != c.Spec.Tree || b.Ledger.Component != component {
		p.t.Errorf("the ledger is of another artifact: %+v", b.Ledger)
	}
	sealed, err := seal.Read(p.b.Objects, c.Spec.Tree)
	if err != nil {
		p.t.Fatal(err)
	}
	if found := ledger.Check(b, sealed); len(found) > 0 {
		p.t.Errorf("the sealed tree is not what the ledger says: %+v", found)
	}
	return b
}

func TestLedger(t *testing.T) {
	p := newProject(t, layered())
	if err := os.Symlink("usr/bin", filepath.Join(p.dir, "tree", "bin")); err != nil {
		t.Fatal(err)
	}
	b := p.read("api")
	var got []string
	for _, e := range b.Entries {
		got = append(got, fmt.Sprintf("%d %s %s %s %q", e.Layer, e.Path, b.Origin(e).Kind, b.Origin(e).Name, b.Member(e)))
	}
	want := []string{
		`0 . rule parents/1 ""`,
		`0 bin file . "tree/bin"`,
		`0 usr rule parents/1 ""`,
		`0 usr/bin rule parents/1 ""`,
		`1 usr/bin/api go example.org/two/cmd/api ""`,
		`0 usr/bin/tool file . "tree/usr/bin/tool"`,
		`2 usr/bin/www rule parents/1 ""`,
		`2 usr/bin/www/a rule parents/1 ""`,
		`2 usr/bin/www/a/b.css file . "www/a/b.css"`,
		`2 usr/bin/www/index.html file . "www/index.html"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("origins (-want +got):\n%s", diff)
	}
	e, _ := b.Lookup("/usr/bin/api")
	prog := b.Origin(e).Go
	var files []string
	for _, f := range prog.Files {
		text, err := os.ReadFile(filepath.Join(p.dir, f.Path))
		if err != nil || digest.FromBytes(text) != f.Digest {
			t.Errorf("%s is not the file that is there: %v", f.Path, err)
		}
		files = append(files, f.Path)
	}
	if want := []string{"cmd/api/main.go", "cmd/api/text/a.txt", "go.mod", "words/words.go"}; !cmp.Equal(files, want) {
		t.Errorf("the program was made of %q, want %q", files, want)
	}
	if prog.Module != "example.org/two" || !strings.HasPrefix(b.Origin(e).Version, "go1.") {
		t.Errorf("the program's origin is %+v", b.Origin(e))
	}
}

// TestLedgerOfAChange shows what a changed byte costs: a small document, and no chapter.
func TestLedgerOfAChange(t *testing.T) {
	p := newProject(t, two())
	before := p.read("web")
	p.write("www/index.html", "<p>version v2</p>\n")
	after := p.read("web")
	if before.Digest == after.Digest {
		t.Error("the ledger did not change with the artifact")
	}
	for i, y := range after.Ledger.Layers {
		if before.Ledger.Layers[i].Chapter != y.Chapter {
			t.Errorf("chapter %d was written again", i)
		}
	}
}

// TestLedgerFromTheArchive explains packages below files and packages over files.
func TestLedgerFromTheArchive(t *testing.T) {
	p := example(t, "site")
	p.b.Fetcher, p.b.Now = debian.NewHTTP(), nil
	b := p.read("web")
	checkDebian(t, p, b)
	for path, want := range map[string]string{
		"usr/sbin/nginx":                     "debian nginx usr/sbin/nginx",
		"usr/lib/x86_64-linux-gnu/libc.so.6": "debian libc6 lib/x86_64-linux-gnu/libc.so.6",
		"bin":                                "rule usrmerge/1 ",
		"etc/passwd":                         "rule accounts/1 ",
		"srv/www/index.html":                 "file . www/index.html",
		"etc/nginx":                          "debian nginx-common etc/nginx",
	} {
		e, ok := b.Lookup(path)
		o := b.Origin(e)
		if got := fmt.Sprintf("%s %s %s", o.Kind, o.Name, b.Member(e)); !ok || got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	p.write("links/opt/nginx/kept", "x")
	if err := errors.Join(os.MkdirAll(filepath.Join(p.dir, "links/usr/share"), 0o755), os.Symlink("../../opt/nginx", filepath.Join(p.dir, "links/usr/share/nginx"))); err != nil {
		t.Fatal(err)
	}
	p.replace("ashlar.yaml", "      - debian:", "      - files: {from: \"links/**\", to: /}\n      - debian:")
	turned := p.read("web")
	checkDebian(t, p, turned)
	if e, ok := turned.Lookup("opt/nginx/html/index.html"); !ok || turned.Member(e) != "usr/share/nginx/html/index.html" {
		t.Errorf("a member that was moved by a link below: %+v", e)
	}
	if e, ok := turned.Lookup("usr/sbin/nginx"); !ok || turned.Origin(e).Name != "nginx" || turned.Member(e) != "usr/sbin/nginx" || e.Layer != 1 {
		t.Errorf("nginx over files: %+v", e)
	}
}

// checkDebian: every file that is said to be a package's has a package with a digest that the lock has.
func checkDebian(t *testing.T, p *project, b *ledger.Book) {
	t.Helper()
	lock, err := build.ReadLockFile(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	known := map[digest.Digest]string{}
	for _, l := range lock.Components["web"].Debian[0].Lock.Packages {
		known[l.SHA256] = l.Name
	}
	count := 0
	for _, e := range b.Entries {
		o := b.Origin(e)
		if o.Kind != ledger.KindDebian {
			continue
		}
		if known[o.Digest] != o.Name || o.Source == "" || !strings.HasPrefix(o.Distribution, "bookworm") {
			t.Fatalf("%s comes from %+v, which is not locked so", e.Path, o)
		}
		if e.Type == image.File {
			count++
		}
	}
	if count < 500 {
		t.Errorf("%d files are of packages", count)
	}
}

// BenchmarkLedger is what explaining 4,000 files adds to a build: the chapter made,
// checked against its tree, written in its canonical form, and named.
func BenchmarkLedger(b *testing.B) {
	explain := build.ExplainFiles(4000)
	b.ResetTimer()
	for b.Loop() {
		if n := explain(); n < 100_000 {
			b.Fatalf("the chapter has %d bytes", n)
		}
	}
}
