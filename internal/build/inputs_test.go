package build_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// web is a definition with one component of one files source.
func web(source string) map[string]string {
	return map[string]string{
		"ashlar.yaml": fmt.Sprintf(`
app: app
components:
  web:
    build:
      - files: {from: [bin/run], to: /usr/bin/run, mode: "0755"}
      - %s
    run: {command: [/usr/bin/run]}
environments:
  production: {}
`, source),
		"bin/run":        "#!/bin/sh\n",
		"www/index.html": "v1\n",
		"www/style.css":  "p {}\n",
		"go.mod":         "module example.org/x\n\ngo 1.24\n",
		"lib/lib.go":     "package lib\n",
		"bad/main.go":    "package main\n\nfunc main() {\n\tundefined()\n}\n",
		"ok/main.go":     "package main\n\nfunc main() {}\n",
	}
}

func TestBadInputs(t *testing.T) {
	link := func(target, name string) func(*project) {
		return func(p *project) {
			if err := os.Symlink(target, filepath.Join(p.dir, name)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		source string
		with   func(*project)
		kind   fault.Kind
		want   []string
	}{
		"no such file":     {`files: {from: www/indx.html, to: /srv/}`, nil, fault.NotFound, []string{"ashlar.yaml:", "www/indx.html", "index.html, style.css"}},
		"no match":         {`files: {from: "www/**/*.png", to: /srv/}`, nil, fault.NotFound, []string{"ashlar.yaml:7:", "*.png"}},
		"no directory":     {`files: {from: "html/**", to: /srv/}`, nil, fault.NotFound, []string{"there is no directory"}},
		"all excluded":     {`files: {from: "www/**", to: /srv/, exclude: ["www/**"]}`, nil, fault.NotFound, []string{"no file matches"}},
		"a directory":      {`files: {from: www, to: /srv/}`, nil, fault.Invalid, []string{"is a directory", "www/**"}},
		"an odd glob":      {`files: {from: "www/{a,b", to: /srv/}`, nil, fault.Invalid, []string{"not a valid glob"}},
		"a link outside":   {`files: {from: "www/**", to: /srv/}`, link("../../etc", "www/out"), fault.Refused, []string{"www/out", "points out of"}},
		"an absolute link": {`files: {from: "www/**", to: /srv/}`, link("/etc/passwd", "www/abs"), fault.Refused, []string{"www/abs", "/etc/passwd"}},
		"a link as base":   {`files: {from: "out/**", to: /srv/}`, link("/etc", "out"), fault.Refused, []string{"out"}},
		"a link to a link": {`files: {from: "www/**", to: /srv/}`, func(p *project) {
			link("/etc", "hop")(p)
			link("../hop/passwd", "www/chain")(p)
		}, fault.Refused, []string{"www/chain"}},
		"a pipe": {`files: {from: "www/**", to: /srv/}`, func(p *project) {
			if err := syscall.Mkfifo(filepath.Join(p.dir, "www/pipe"), 0o644); err != nil {
				p.t.Fatal(err)
			}
		}, fault.Invalid, []string{"www/pipe"}},
		"two to one":         {`files: {from: [www/index.html, lib/lib.go], to: /srv/, base: .}`, nil, "", nil},
		"one place":          {`files: {from: ["www/*", "lib/*", "ok/*", "bad/*"], to: /srv/}`, nil, fault.Invalid, []string{"main.go", "both go to /srv/main.go"}},
		"file over dir":      {`files: {from: www/index.html, to: /usr/bin}`, nil, fault.Invalid, []string{"/usr/bin"}},
		"dir over file":      {`files: {from: www/index.html, to: /usr/bin/run/index.html}`, nil, fault.Invalid, []string{"usr/bin/run"}},
		"compile error":      {`go: {package: ./bad}`, nil, fault.Invalid, []string{"bad/main.go:4:2: undefined: undefined"}},
		"not main":           {`go: {package: ./lib}`, nil, fault.Invalid, []string{"./lib", "main"}},
		"no package":         {`go: {package: ./nothing}`, nil, fault.Invalid, []string{"nothing"}},
		"several packages":   {`go: {package: ./...}`, nil, fault.Invalid, []string{"./...", "3 packages"}},
		"not in the archive": {`debian: {suite: nosuite, packages: [nginx-light]}`, nil, fault.NotFound, []string{"nosuite"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, web(c.source))
			if c.with != nil {
				c.with(p)
			}
			_, err := p.release()
			if c.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFault(t, err, c.kind, c.want...)
			p.nothingLeft()
		})
	}
}

// nothingLeft checks that a build that failed left no temporary file.
func (p *project) nothingLeft() {
	p.t.Helper()
	for _, dir := range []string{"objects/tmp/*/*", "cache/tmp/*"} {
		left, err := filepath.Glob(filepath.Join(p.state, dir))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, name := range left {
			if filepath.Base(name) != "lock" {
				p.t.Errorf("left behind: %s", name)
			}
		}
	}
}

func TestBadSettings(t *testing.T) {
	for name, c := range map[string]struct {
		run  string
		want []string
	}{
		"no program":        {`{command: [/usr/bin/rum]}`, []string{"/usr/bin/rum", "near:  /usr/bin/run", "production", "web"}},
		"not in PATH":       {`{command: [rnu]}`, []string{`"rnu"`, "/usr/bin/run"}},
		"PATH of its own":   {`{command: [run], env: {PATH: /opt/bin}}`, []string{"searched: /opt/bin", "/usr/bin/run"}},
		"relative":          {`{command: [bin/run]}`, []string{"absolute"}},
		"a directory":       {`{command: [/usr/bin]}`, []string{"dir"}},
		"not executable":    {`{command: [/srv/index.html]}`, []string{"0644", "0755"}},
		"no such user":      {`{command: [run], user: www-data}`, []string{"www-data", "/etc/passwd", "known: nobody, web"}},
		"no such group":     {`{command: [run], user: "web:staff"}`, []string{"staff", "/etc/group"}},
		"no such workdir":   {`{command: [run], workdir: /data}`, []string{"/data"}},
		"workdir is file":   {`{command: [run], workdir: /usr/bin/run}`, []string{"/usr/bin/run"}},
		"tmpfs over file":   {`{command: [run], tmpfs: {/usr/bin/run: 1MiB}}`, []string{"usr/bin/run"}},
		"config over a dir": {`{command: [run], files: {/srv: {content: x}}}`, []string{"srv"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := web(`files: {from: ["www/**", "passwd"], to: /srv/}` + "\n      - files: {from: passwd, to: /etc/passwd}")
			files["passwd"] = "web:x:1000:1001::/:/bin/false\nnobody:x:65534:65534::/:\nbroken line\n"
			files["ashlar.yaml"] = strings.Replace(files["ashlar.yaml"], "{command: [/usr/bin/run]}", c.run, 1)
			_, err := newProject(t, files).release()
			wantFault(t, err, fault.Invalid, c.want...)
		})
	}
}

func TestUsers(t *testing.T) {
	for user, want := range map[string]string{
		`web`: "1000:1001", `"1000"`: "1000:1001", `"7"`: "7:7", `"7:8"`: "7:8", `"web:8"`: "1000:8",
		`"web:staff"`: "1000:50", `"nobody:50"`: "65534:50", `"65532:65532"`: "65532:65532",
	} {
		files := web(`files: {from: [passwd, group], to: /etc/}`)
		files["passwd"] = "web:x:1000:1001::/:/bin/false\nnobody:x:65534:65534::/:\n"
		files["group"] = "staff:x:50:\n"
		files["ashlar.yaml"] = strings.Replace(files["ashlar.yaml"], "{command: [/usr/bin/run]}", "{command: [run], user: "+user+"}", 1)
		s := spec(newProject(t, files).mustRelease())
		if got := fmt.Sprintf("%d:%d", s.UID, s.GID); got != want {
			t.Errorf("user %s is %s, want %s", user, got, want)
		}
	}
}
