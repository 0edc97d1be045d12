package build_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// project is a definition with its files in a directory, and a state directory.
type project struct {
	t      *testing.T
	dir    string
	state  string
	events *events
	b      *build.Builder
}

type events struct {
	mu   sync.Mutex
	list []build.Event
}

func (e *events) add(ev build.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// made lists the steps of a component that did work, in order, "component/step".
func (e *events) made() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, ev := range e.list {
		if ev.Done && !ev.Reused {
			out = append(out, strings.Trim(ev.Component+"/"+string(ev.Step), "/"))
		}
	}
	e.list = nil
	return out
}

// noNetwork fails on every call.
type noNetwork struct{ t *testing.T }

func (n noNetwork) Get(_ context.Context, url string) (io.ReadCloser, error) {
	n.t.Errorf("the network was used: %s", url)
	return nil, fmt.Errorf("no network: %w", fs.ErrNotExist)
}

func newProject(t *testing.T, files map[string]string) *project {
	t.Helper()
	return newProjectAt(t, t.TempDir(), t.TempDir(), files)
}

func newProjectAt(t *testing.T, dir, state string, files map[string]string) *project {
	t.Helper()
	objects, err := object.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { objects.Close() })
	p := &project{t: t, dir: dir, state: state, events: &events{}}
	p.b = &build.Builder{Objects: objects, Dir: state, Definition: dir, Progress: p.events.add, Fetcher: noNetwork{t},
		// A minute ahead, so that files written just now count as written long ago.
		Now: func() time.Time { return time.Now().Add(time.Minute) },
	}
	for name, text := range files {
		p.write(name, text)
	}
	return p
}

func (p *project) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) define() (*definition.Definition, error) {
	name := filepath.Join(p.dir, "ashlar.yaml")
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return definition.Parse(name, src, os.DirFS(p.dir).(definition.Files))
}

func (p *project) release() (release.Release, error) {
	def, err := p.define()
	if err != nil {
		return release.Release{}, err
	}
	return build.Release(p.t.Context(), p.b, def)
}

func (p *project) mustRelease() release.Release {
	p.t.Helper()
	r, err := p.release()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// spec is the only component's in production.
func spec(r release.Release) release.Spec {
	for _, c := range r.Environments["production"].Components {
		return c.Spec
	}
	return release.Spec{}
}

// two is an application of a Go program and of files.
func two() map[string]string {
	return map[string]string{
		"ashlar.yaml": `
app: two
components:
  api:
    build:
      - go: {package: ./cmd/api}
    run:
      command: [api]
      port: 8080
      files:
        /etc/api.conf: {from: api.conf}
  web:
    build:
      - files: {from: [bin/run], to: /usr/bin/run, mode: "0755"}
      - files: {from: "www/**", to: /srv/www/, exclude: ["**/*.bak"]}
    run: {command: [/usr/bin/run], user: "33:33"}
environments:
  staging: {}
  production: {replicas: 2}
`,
		"go.mod":             "module example.org/two\n\ngo 1.24\n",
		"cmd/api/main.go":    "package main\n\nimport (\n\t_ \"embed\"\n\n\t\"example.org/two/words\"\n)\n\n//go:embed text/*.txt\nvar text string\n\nfunc main() { println(words.Hello, text) }\n",
		"cmd/api/text/a.txt": "embedded\n",
		"words/words.go":     "package words\n\nconst Hello = \"v1\"\n",
		"api.conf":           "level = info\n",
		"bin/run":            "#!/bin/sh\n",
		"www/index.html":     "<p>version v1</p>\n",
		"www/a/b.css":        "p {}\n",
		"www/a/b.css.bak":    "no\n",
	}
}

func TestSameInputsSameDigests(t *testing.T) {
	first := newProject(t, two())
	a := first.mustRelease()

	// Another place, another time, another umask, another zone, other modes of the files.
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	t.Setenv("TZ", "Pacific/Auckland")
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("GOFLAGS", "-tags=other")
	second := newProjectAt(t, filepath.Join(t.TempDir(), "else", "where"), t.TempDir(), two())
	long := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	err := filepath.WalkDir(second.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = errors.Join(os.Chtimes(path, long, long), os.Chmod(path, 0o600))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b := second.mustRelease()
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("the same inputs gave two releases (-first +second):\n%s", d)
	}
	api := a.Environments["production"].Components["api"].Spec
	if api.Command[0] != "/usr/bin/api" || api.UID != 65532 || len(api.Files) != 1 {
		t.Errorf("the specification is not what was declared: %+v", api)
	}
}

func TestAChangeRedoesWhatItTouches(t *testing.T) {
	p := newProject(t, two())
	before := p.mustRelease()
	p.events.made()

	step := func(name string, change func(), want ...string) release.Release {
		t.Helper()
		change()
		r := p.mustRelease()
		got := map[string]bool{}
		for _, s := range p.events.made() {
			got[s] = true
		}
		// The end of a build is told also when nothing was made.
		wanted := map[string]bool{}
		for _, s := range want {
			wanted[s] = true
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s: steps that did work (-want +got):\n%s", name, d)
		}
		return r
	}
	if r := step("nothing", func() {}); cmp.Diff(before, r) != "" {
		t.Error("nothing changed, but the release did")
	}
	step("a file", func() { p.write("www/index.html", "<p>version v2</p>\n") }, "web/files", "web/layer", "web/seal", "web/done")
	step("a file back", func() { p.write("www/index.html", "<p>version v1</p>\n") }, "web/files")
	step("an excluded file", func() { p.write("www/a/b.css.bak", "never\n") })
	step("a touch", func() { p.write("www/a/b.css", "p {}\n") }, "web/files")
	step("a file more", func() { p.write("www/new.html", "new\n") }, "web/files", "web/layer", "web/seal", "web/done")
	step("a config file", func() { p.write("api.conf", "level = debug\n") }, "settings")
	step("an imported package", func() { p.write("words/words.go", "package words\n\nconst Hello = \"v2\"\n") }, "api/go", "api/layer", "api/seal", "api/done")
	step("its test", func() { p.write("words/words_test.go", "package words\n") })
	step("an embedded file", func() { p.write("cmd/api/text/a.txt", "other\n") }, "api/go", "api/layer", "api/seal", "api/done")
	step("a setting", func() {
		p.replace("ashlar.yaml", "port: 8080", "port: 9090")
	}, "api/seal", "api/done") // the manifest exposes the port
	last := step("back to the start", func() {
		for name, text := range two() {
			p.write(name, text)
		}
		if err := os.Remove(filepath.Join(p.dir, "www/new.html")); err != nil {
			t.Fatal(err)
		}
	}, "web/files")
	if d := cmp.Diff(before, last); d != "" {
		t.Errorf("the first inputs gave another release:\n%s", d)
	}
}

// A second file that an embed pattern matches fails this program's build ("text"
// is one string): it must be noticed although no known file changed.
func TestANewFileIsNoticed(t *testing.T) {
	p := newProject(t, two())
	p.mustRelease()
	p.write("cmd/api/text/b.txt", "second\n")
	if _, err := p.release(); err == nil || !strings.Contains(err.Error(), "main.go") {
		t.Errorf("got %v, want the compiler's complaint about the embedded files", err)
	}
}

func (p *project) replace(name, old, with string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		p.t.Fatalf("%s has no %q", name, old)
	}
	p.write(name, strings.Replace(string(b), old, with, 1))
}

func wantFault(t *testing.T, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Errorf("got %v, want a fault", err)
		return
	}
	if f.Kind != kind {
		t.Errorf("kind %s, want %s: %v", f.Kind, kind, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the fault does not say %q:\n%v", part, err)
		}
	}
	if f.Fix == "" {
		t.Errorf("the fault tells no remedy: %v", err)
	}
}
