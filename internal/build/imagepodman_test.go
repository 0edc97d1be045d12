package build_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// remover is a program that deletes, for images that have no shell.
const remover = `package main

import "os"

func main() {
	for _, name := range os.Args[1:] {
		if err := os.RemoveAll(name); err != nil {
			panic(err)
		}
	}
}
`

const containerfile = `FROM scratch
COPY remove /bin/remove
COPY --chown=7:8 a /a
RUN ["/bin/remove", "/a/gone", "/a/b"]
COPY a/b/c /a/b/d
ENV GREETING=hello
USER 1000:1001
WORKDIR /a
STOPSIGNAL 3
ENTRYPOINT ["/bin/remove"]
CMD ["/nothing"]
`

// podman is Debian's, with a store of its own.
type podman struct {
	t   *testing.T
	dir string
}

// podmanDir is a directory for podman's store, which podman leaves mounted.
func podmanDir(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "root", "overlay"), syscall.MNT_DETACH) }) // it may not be
	return dir
}

func (p podman) run(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("podman", append([]string{"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run")}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("podman %s: %v\n%s", args, err, &errs)
	}
	return strings.TrimSpace(string(out))
}

// TestPodman builds an image of layers with podman, whiteouts among them, and compares
// what is made of it with what podman itself mounts.
func TestPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil || os.Getuid() != 0 {
		t.Fatal("this needs root and podman: apt-get install podman")
	}
	p := newProject(t, map[string]string{
		"ashlar.yaml": strings.NewReplacer("      - files: {from: \"www/*\", to: /srv/}\n", "", "RUN", "").Replace(onImage),
		"main.go":     remover, "a/b/c": "c", "a/gone": "gone", "Containerfile": containerfile,
	})
	cmd := exec.Command("go", "build", "-o", "remove", "main.go")
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pod := podman{t, podmanDir(t)}
	pod.run("build", "--isolation", "chroot", "--layers", "-q", "-t", "app:v1", p.dir)
	t.Cleanup(func() { pod.run("image", "unmount", "-a") })
	pod.run("save", "-q", "--format", "oci-archive", "-o", filepath.Join(p.dir, "base.tar"), "app:v1")
	got := spec(p.mustRelease())
	want := treeOf(t, pod.run("image", "mount", "app:v1"))
	have := map[string]string{}
	for _, e := range root(t, p, got.Tree).Entries {
		have[e.Path] = describe(e)
	}
	delete(want, ".") // of which no layer says anything: podman makes it 0555
	delete(have, ".")
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("the tree (-podman +ashlar):\n%s", diff)
	}
	if _, ok := have["a/gone"]; ok || have["a/b/d"] == "" {
		t.Errorf("the layers do not hide what they should: %v", have)
	}
	if diff := cmp.Diff([]string{"/bin/remove", "/nothing"}, got.Command); diff != "" || got.UID != 1000 || got.GID != 1001 || got.WorkDir != "/a" || got.StopSignal != "SIGQUIT" || got.Env["GREETING"] != "hello" {
		t.Errorf("the configuration: %+v", got)
	}
}

// TestDockerfile builds with podman and buildah, once for the same inputs, and holds to
// the lock.
func TestDockerfile(t *testing.T) {
	for _, tool := range []string{"podman", "buildah"} {
		t.Run(tool, func(t *testing.T) { testDockerfile(t, tool) })
	}
}

func testDockerfile(t *testing.T, tool string) {
	at, err := exec.LookPath(tool)
	if err != nil || os.Getuid() != 0 {
		t.Fatalf("this needs root and %s: apt-get install %s", tool, tool)
	}
	path := t.TempDir()
	if err := os.Symlink(at, filepath.Join(path, tool)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path)
	storage := podmanDir(t)
	conf := filepath.Join(storage, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(storage, "root"), filepath.Join(storage, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	files := map[string]string{
		"app/Containerfile": "FROM scratch AS first\nARG TEXT\nCOPY run /bin/run\nCOPY text /text\nENV TEXT=$TEXT\nCMD [\"/bin/run\"]\nFROM first\nCOPY nothing /nothing\n",
		"app/run":           "#!/bin/sh\n", "app/text": "text", "app/nothing": "",
		"ashlar.yaml": `
app: on
components:
  web:
    build: [{dockerfile: {context: app, file: Containerfile, target: first, args: {TEXT: hello}}}]
environments:
  production: {platform: local}
`}
	p := newProject(t, files)
	if err := os.Chmod(filepath.Join(p.dir, "app/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.b.Locked = true
	_, err = p.release()
	wantFault(t, err, fault.Conflict, "ashlar.lock has no entry for the inputs of app/Containerfile")
	p.b.Locked = false
	first := spec(p.mustRelease())
	if first.Command[0] != "/bin/run" || first.Env["TEXT"] != "hello" {
		t.Errorf("the image's configuration: %v %v", first.Command, first.Env)
	}
	if _, ok := root(t, p, first.Tree).Lookup("nothing"); ok {
		t.Error("the wrong stage was taken")
	}
	wantOrigin(t, p, "built by "+tool+" version ", "not shown to be reproducible")
	p.events.made()
	if again := spec(p.mustRelease()); again.Artifact != first.Artifact || len(p.events.made()) > 0 {
		t.Error("the same inputs were built again")
	}
	// Nor does anything depend on who checked the files out, and when.
	elsewhere := newProjectAt(t, t.TempDir(), t.TempDir(), files)
	for name, mode := range map[string]fs.FileMode{"app/run": 0o700, "app/text": 0o600, "app": 0o700} {
		if err := errors.Join(os.Chmod(filepath.Join(elsewhere.dir, name), mode), os.Chtimes(filepath.Join(elsewhere.dir, name), time.Unix(1, 0), time.Unix(1, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if other := spec(elsewhere.mustRelease()); other.Artifact != first.Artifact {
		t.Error("another checkout gives another image")
	}
	lock, err := build.ReadLockFile(p.dir)
	if err != nil || len(lock.Components["web"].Dockerfiles) != 1 {
		t.Fatalf("locked: %+v, %v", lock, err)
	}
	entry := lock.Components["web"].Dockerfiles[0]
	if entry.Reproducible || !strings.HasPrefix(entry.Tool, tool+" version ") {
		t.Errorf("locked: %+v", entry)
	}
	p.write("app/nothing", "changed")
	spec(p.mustRelease())
	if made := p.events.made(); !slices.Contains(made, "web/image") {
		t.Errorf("a changed input was not built: %v", made)
	}
	// Another machine, on which the build gives something else than the lock says.
	p.write("app/nothing", "")
	entry.Manifest = digest.FromString("another image")
	lock.Components["web"] = build.ComponentLock{Dockerfiles: []build.DockerLock{entry}}
	if _, err := lock.Write(p.dir); err != nil {
		t.Fatal(err)
	}
	other := newProjectAt(t, p.dir, t.TempDir(), nil)
	_, err = other.release()
	wantFault(t, err, fault.Conflict, "its build is not reproducible", entry.Manifest.String())

	p.write("app/Containerfile", "FROM scratch AS first\nCOPY no-such-file /\n")
	_, err = p.release()
	wantFault(t, err, fault.Invalid, tool+" build failed", "no-such-file")
	t.Setenv("PATH", t.TempDir())
	_, err = p.release()
	wantFault(t, err, fault.Unavailable, "no program is installed that builds Dockerfiles", "apt-get install buildah")
}

// wantOrigin checks what the ledger of the only component says of its image.
func wantOrigin(t *testing.T, p *project, parts ...string) {
	t.Helper()
	def, err := p.define()
	if err != nil {
		t.Fatal(err)
	}
	art, err := build.Component(t.Context(), p.b, def.Components[0])
	if err != nil {
		t.Fatal(err)
	}
	book, err := ledger.Read(p.b.Objects, art.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	inputs := book.Inputs()
	if len(inputs) != 1 || inputs[0].Kind != ledger.KindImage {
		t.Fatalf("inputs: %+v", inputs)
	}
	for _, part := range parts {
		if !strings.Contains(inputs[0].Text, part) {
			t.Errorf("the ledger says %q, not %q", inputs[0].Text, part)
		}
	}
}

func describe(e image.Entry) string {
	if e.Type != image.File {
		e.Size, e.Digest = 0, ""
	}
	return fmt.Sprintf("%s %04o %d:%d %s%s", e.Type, e.Mode, e.UID, e.GID, e.Digest, e.Link)
}

// treeOf lists a directory.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		e := image.Entry{Path: name, Mode: uint32(st.Mode & 0o7777), UID: int(st.Uid), GID: int(st.Gid)}
		switch {
		case info.IsDir():
			e.Type = image.Dir
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.Type, e.Digest = image.File, digest.FromBytes(b)
		default:
			e.Type = image.Symlink
			if e.Link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		out[name] = describe(e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
