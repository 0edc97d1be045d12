package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Clients of daemons, made of the shell: they note what they are told, and give an image
// that is there already. DOWN makes the daemon fail.
const (
	fakeDocker = `#!/bin/sh
echo "$*" >>"$SAID"
case $1 in
version) [ -z "$DOWN" ] || { echo "Cannot connect to the Docker daemon. Is the docker daemon running?" >&2; exit 1; } ;;
--version) echo "Docker version 20.10.24, build 1" ;;
build) while [ "$1" != --iidfile ]; do shift; done; echo sha256:1 >"$2" ;;
save) cp "$IMAGE" "$3" ;;
esac
`
	fakeBuildctl = `#!/bin/sh
echo "$*" >>"$SAID"
case $1 in
debug) [ -z "$DOWN" ] || { echo "error: failed to list workers: no such file or directory" >&2; exit 1; } ;;
--version) echo "buildctl github.com/moby/buildkit v0.21.0" ;;
build) for a do case $a in *dest=*) cp "$IMAGE" "${a##*dest=}" ;; esac; done ;;
esac
`
)

// TestDaemons: docker and BuildKit are asked for the same, and one whose daemon does not
// run is passed over, or named when there is no other.
func TestDaemons(t *testing.T) {
	for _, tool := range []struct {
		name, script, version, down string
		told                        []string
	}{
		{"docker", fakeDocker, "built by Docker version 20.10.24", "docker does not answer: Cannot connect to the Docker daemon.",
			[]string{"build --quiet --iidfile ", "/context/Containerfile --platform linux/", "--target first --build-arg TEXT=hello ", "save --output "}},
		{"buildctl", fakeBuildctl, "built by buildctl github.com", "buildctl does not answer: error: failed to list workers",
			[]string{"--frontend dockerfile.v0 --local context=", "--opt filename=Containerfile --opt platform=linux/", "rewrite-timestamp=true,dest=", "--opt target=first --opt build-arg:TEXT=hello"}},
	} {
		t.Run(tool.name, func(t *testing.T) {
			base, artifact, _ := export(t, "unused")
			image, said := filepath.Join(t.TempDir(), "image.tar"), filepath.Join(t.TempDir(), "said")
			if err := build.ExportLayout(t.Context(), base.b.Objects, artifact, "", image); err != nil {
				t.Fatal(err)
			}
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, tool.name), []byte(tool.script), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"cp", "sh"} {
				if err := os.Symlink("/bin/"+name, filepath.Join(path, name)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", path)
			t.Setenv("SAID", said)
			t.Setenv("IMAGE", image)
			p := newProject(t, map[string]string{"app/Containerfile": "FROM scratch\n", "ashlar.yaml": `
app: on
components:
  web:
    build: [{dockerfile: {context: app, file: Containerfile, target: first, args: {TEXT: hello}}}]
environments:
  production: {platform: local}
`})
			t.Setenv("DOWN", "1")
			_, err := p.release()
			wantFault(t, err, fault.Unavailable, "no program builds Dockerfiles here", tool.down, "apt-get install buildah", "start buildkitd")
			t.Setenv("DOWN", "")
			p.mustRelease()
			wantOrigin(t, p, tool.version)
			text, err := os.ReadFile(said)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tool.told {
				if !strings.Contains(string(text), want) {
					t.Errorf("it is not told %q:\n%s", want, text)
				}
			}
		})
	}
}
