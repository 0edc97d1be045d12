package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// maker is what the Dockerfile of the stories runs: what it makes depends on the time if
// it is told to.
const maker = `package main

import (
	"os"
	"strings"
	"time"
)

func main() {
	text, err := os.ReadFile("/srv/text")
	if strings.HasPrefix(string(text), "time") {
		text = []byte(time.Now().String())
	}
	if err == nil {
		err = os.WriteFile("/srv/made", text, 0o644)
	}
	if err != nil {
		panic(err)
	}
}
`

// TestDockerfile plays the stories of testdata/dockerfile with buildah. Podman has the
// same code in it, and the tests of package build.
func TestDockerfile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this needs root")
	}
	made := filepath.Join(t.TempDir(), "make")
	if err := os.WriteFile(made+".go", []byte(maker), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", made, made+".go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	path := tools(t)
	storage := t.TempDir()
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(storage, "root", "overlay"), syscall.MNT_DETACH) }) // it may not be mounted
	conf := filepath.Join(storage, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(storage, "root"), filepath.Join(storage, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/dockerfile",
		Setup: func(env *testscript.Env) error {
			ours, err := exec.LookPath("ashlar")
			if err != nil {
				return err
			}
			for name, value := range map[string]string{
				"PATH": filepath.Dir(ours) + ":" + path, "ASHLAR_DIR": env.WorkDir + "/state", "NO_COLOR": "1", "TZ": "UTC",
				"CONTAINERS_STORAGE_CONF": conf, "BUILDAH_ISOLATION": "chroot", "LATE": env.WorkDir + "/late",
			} {
				env.Setenv(name, value)
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "app", "make"), program, 0o755)
		},
	})
}

// tools is a directory for PATH in which buildah is the only program that builds
// Dockerfiles. While there is a file $LATE, no two of its images are the same.
func tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"buildah", "sh", "cat", "touch", "ls", "wc"} {
		at, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%s is missing:  apt-get install %s", name, name)
		}
		if name == "buildah" {
			script := "#!/bin/sh\nif [ $1 = build ] && [ -e $LATE ]; then shift; set -- build --label late=$$ \"$@\"; fi\nexec " + at + " \"$@\"\n"
			err = os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755)
		} else {
			err = os.Symlink(at, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
