package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

const onImage = `
app: on
components:
  web:
    build:
      - image: {path: base.tar}
      - files: {from: "www/*", to: /srv/}
RUN
environments:
  production: {platform: local}
`

// skopeo copies an image with Debian's skopeo.
func skopeo(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("skopeo", append(strings.Fields("--insecure-policy copy -q"), args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo copy %s: %v\n%s", args, err, out)
	}
}

func root(t *testing.T, p *project, sealed digest.Digest) image.Tree {
	t.Helper()
	tree, err := seal.Read(p.b.Objects, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestSkopeo exports an artifact, has other people's tool write it in every form, and
// builds on that: the tree is the original's.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Fatal("skopeo is not installed: apt-get install skopeo")
	}
	p, _, layout := export(t, "layout")
	original := root(t, p, p.mustRelease().Environments["production"].Components["web"].Spec.Tree)
	for to, how := range map[string][]string{
		"base.tar": {"oci-archive:base.tar"},
		"saved":    {"docker-archive:saved:two/web:v1"},
		"gzip":     {"oci:gzip:v1"},
		"zstd":     {"oci:zstd", "--dest-compress-format", "zstd"},
		"plain":    {"oci:plain", "--dest-oci-accept-uncompressed-layers"},
	} {
		t.Run(to, func(t *testing.T) {
			files := map[string]string{"ashlar.yaml": strings.NewReplacer("base.tar", to, "      - files: {from: \"www/*\", to: /srv/}\n", "", "RUN", "").Replace(onImage)}
			q := newProject(t, files)
			transport, rest, _ := strings.Cut(how[0], ":")
			skopeo(t, append(how[1:], "oci:"+layout, transport+":"+filepath.Join(q.dir, rest))...)
			r := q.mustRelease()
			if diff := image.Diff(original, root(t, q, spec(r).Tree)); diff != nil {
				t.Errorf("%d differences, the first: %v", len(diff), diff[0])
			}
			if got := spec(r); got.Command[0] != "/usr/bin/run" || got.UID != 33 {
				t.Errorf("the image's configuration was lost: %v, user %d", got.Command, got.UID)
			}
		})
	}
}

// TestImageDefaults: what the image says holds where ashlar.yaml is silent.
func TestImageDefaults(t *testing.T) {
	base := newProject(t, map[string]string{
		"bin/app": "#!/bin/sh\n", "etc/passwd": "web:x:33:44::/:\n",
		"ashlar.yaml": `
app: base
components:
  base:
    build:
      - files: {from: bin/app, to: /usr/bin/app, mode: "0755"}
      - files: {from: etc/passwd, to: /etc/passwd}
    run: {command: [/usr/bin/app, from-image], workdir: /etc, user: web, stop: {signal: SIGQUIT}}
environments:
  production: {platform: local}
`})
	artifact := spec(base.mustRelease()).Artifact
	p := newProject(t, map[string]string{"www/index.html": "hi", "ashlar.yaml": strings.Replace(onImage, "RUN", "", 1)})
	if err := build.ExportLayout(t.Context(), base.b.Objects, artifact, "", filepath.Join(p.dir, "base.tar")); err != nil {
		t.Fatal(err)
	}
	got := spec(p.mustRelease())
	if diff := cmp.Diff([]string{"/usr/bin/app", "from-image"}, got.Command); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if got.WorkDir != "/etc" || got.UID != 33 || got.GID != 44 || got.StopSignal != "SIGQUIT" || got.Env["PATH"] == "" {
		t.Errorf("got %s, %d:%d, %s, %v", got.WorkDir, got.UID, got.GID, got.StopSignal, got.Env)
	}
	if _, ok := root(t, p, got.Tree).Lookup("srv/index.html"); !ok {
		t.Error("the files are not on top of the image")
	}
	p.write("ashlar.yaml", strings.Replace(onImage, "RUN", `    run: {command: [/usr/bin/app], workdir: /srv, user: "7:8", stop: {signal: SIGINT}, env: {PATH: /usr/bin, X: y}}`, 1))
	got = spec(p.mustRelease())
	if len(got.Command) != 1 || got.WorkDir != "/srv" || got.UID != 7 || got.GID != 8 || got.StopSignal != "SIGINT" {
		t.Errorf("ashlar.yaml does not win: %v %s %d:%d %s", got.Command, got.WorkDir, got.UID, got.GID, got.StopSignal)
	}
	if diff := cmp.Diff(map[string]string{"PATH": "/usr/bin", "X": "y"}, got.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
}

// TestImageIsLocked: ashlar.lock names the image, and another one in its place is not taken.
func TestImageIsLocked(t *testing.T) {
	p, name, _ := export(t, "unused")
	q := newProject(t, map[string]string{"www/x": "x", "ashlar.yaml": strings.Replace(onImage, "RUN", "", 1)})
	at := filepath.Join(q.dir, "base.tar")
	put := func(artifact digest.Digest) {
		t.Helper()
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
		if err := build.ExportLayout(t.Context(), p.b.Objects, artifact, "", at); err != nil {
			t.Fatal(err)
		}
	}
	put(name)
	q.b.Locked = true
	_, err := q.release()
	wantFault(t, err, fault.Conflict, "ashlar.lock has no entry for the image base.tar")
	q.b.Locked = false
	first := spec(q.mustRelease())
	lock, err := build.ReadLockFile(q.dir)
	if err != nil || len(lock.Components["web"].Images) != 1 || lock.Components["web"].Images[0].Manifest != name {
		t.Fatalf("locked: %+v, %v", lock, err)
	}

	p.write("www/index.html", "another")
	another := spec(p.mustRelease()).Artifact
	put(another)
	if again := spec(q.mustRelease()); again.Artifact != first.Artifact {
		t.Error("an image that is not locked was taken")
	}
	fresh := newProjectAt(t, q.dir, t.TempDir(), nil)
	_, err = fresh.release()
	wantFault(t, err, fault.Conflict, "does not hold the image "+name.String(), "ashlar build --update")
	t.Attr("refused", "does not hold the image <- another image lies where the locked one was")
	q.b.Update = true
	if again := spec(q.mustRelease()); again.Artifact == first.Artifact {
		t.Error("--update does not take the new image")
	}
}
