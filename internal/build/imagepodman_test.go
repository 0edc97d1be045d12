package build_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
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
		t.Skip("this needs root and podman: apt-get install podman")
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
	pod := podman{t, t.TempDir()}
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
