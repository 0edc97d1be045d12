package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// built is what of a build's JSON must not depend on where and when it is made.
type built struct {
	Release    string
	Components []struct {
		Name, Artifact, Seal string
		Files                int
		Bytes                int64
	}
}

// build builds in a state directory that has no server.
func (a *app) build(env ...string) built {
	a.t.Helper()
	var b built
	cmd := exec.Command("sh", "-c", `umask 027; exec "$0" build --output json`, filepath.Join(bin, "ashlar"))
	cmd.Env = env
	a.run(cmd)().into(&b)
	return b
}

// workshop is an example in a directory of a given name, without a server.
func workshop(t *testing.T, example, place string) *app {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), said: &text{}}
	a := h.example(example)
	moved := filepath.Join(t.TempDir(), place)
	if err := os.MkdirAll(filepath.Dir(moved), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(a.dir, moved); err != nil {
		t.Fatal(err)
	}
	a.dir = moved
	a.edit("ashlar.yaml", a.listens(), "127.0.0.1:8080")
	return a
}

// disguise gives every file another time and the modes of another umask.
func (a *app) disguise() {
	a.t.Helper()
	at := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	err := filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if e.IsDir() {
			mode = 0o700
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// Two builds at other places, times, umasks, time zones and with other settings
// of the compiler give the same digests, and other tools take the image.
func TestReproducible(t *testing.T) {
	first := workshop(t, "hello", "hello")
	a := first.build("TZ=UTC")
	second := workshop(t, "hello", "a long way/from here/hello again")
	second.disguise()
	b := second.build("TZ=Pacific/Chatham", "LC_ALL=tr_TR.UTF-8", "GOFLAGS=-race")
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("built elsewhere (-first +second):\n%s", d)
	}
	first.accepted(a.Components[0].Artifact)
}

// accepted exports the image and hands it to skopeo and podman.
func (a *app) accepted(artifact string) {
	a.t.Helper()
	for _, tool := range []string{"skopeo", "podman"} {
		if _, err := exec.LookPath(tool); err != nil {
			a.t.Fatalf("%s is missing:  apt-get install %s", tool, tool)
		}
	}
	layout, archive := filepath.Join(a.t.TempDir(), "layout"), filepath.Join(a.t.TempDir(), "image.tar")
	a.ashlar("build", "--export", layout).ok().says("written to " + layout)
	a.ashlar("build", "--export", archive).ok()
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	b, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err != nil || len(index.Manifests) != 1 {
		a.t.Fatalf("index.json: %v\n%s", err, b)
	}
	tag := index.Manifests[0].Annotations["org.opencontainers.image.ref.name"]
	if out := a.tool("skopeo", "inspect", "oci:"+layout+":"+tag); !strings.Contains(out, artifact) {
		a.t.Errorf("skopeo inspect does not name %s:\n%s", artifact, out)
	}
	store, err := os.MkdirTemp("/tmp", "pod") // podman wants short paths
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := os.RemoveAll(store); err != nil {
			a.t.Error(err)
		}
	})
	podman := []string{"podman", "--root", store + "/root", "--runroot", store + "/run", "--storage-driver", "vfs"}
	a.tool(append(podman, "load", "-i", archive)...)
	if images := a.tool(append(podman, "images", "-q")...); strings.TrimSpace(images) == "" {
		a.t.Error("podman load brought no image")
	}
}

func (a *app) tool(args ...string) string {
	a.t.Helper()
	out, err := exec.CommandContext(a.t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		a.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// examples/site for real: nginx from Debian's archive, as apt is set up here. It is
// deployed, changed in one line, put back; and built again elsewhere from the lock.
func TestSite(t *testing.T) {
	a := newHost(t).example("site")
	a.deploy().says("release 1 is live", "2 instances started")
	if got := a.get("/"); !strings.Contains(got, "version v1") {
		t.Fatalf("the site: %q", got)
	}
	run := a.load(100, "Last-Modified")
	a.edit("www/index.html", "version v1", "version v2")
	r := a.deploy()
	t.Logf("a one-line change: %s", r.took)
	if got := a.get("/"); !strings.Contains(got, "version v2") {
		t.Errorf("the site: %q", got)
	}
	a.ashlar("rollback", "-y").ok()
	if got := a.get("/"); !strings.Contains(got, "version v1") {
		t.Errorf("the site: %q", got)
	}
	a.unharmed(run)
	a.ashlar("seal", "verify", "production/web").ok()
	for _, in := range ids(a.settled()) {
		if uid := statusOf(t, a.pids(in)[0])["Uid"]; !slices.Equal(strings.Fields(uid), []string{"33", "33", "33", "33"}) {
			t.Errorf("nginx runs as %s, not as www-data", uid)
		}
	}

	a.ashlar("explain", "production/web:/usr/sbin/nginx").ok().says("/usr/sbin/nginx  in production/web, release 1", "from     package nginx ", "member   usr/sbin/nginx")
	a.ashlar("explain", "production/web:/etc/nginx/nginx.conf", "--release", "2").ok().says("release 2", "a config file of the component")
	a.ashlar("sbom", "production/web").ok().says("pkg:deb/debian/nginx@")

	a.edit("www/index.html", "version v2", "version v1")
	again := &app{host: &host{t: t, dir: t.TempDir()}, dir: filepath.Join(t.TempDir(), "elsewhere/site")}
	if err := os.CopyFS(again.dir, os.DirFS(a.dir)); err != nil {
		t.Fatal(err)
	}
	again.disguise()
	if d := cmp.Diff(a.build("TZ=UTC"), again.build("TZ=Pacific/Chatham")); d != "" {
		t.Errorf("built elsewhere (-first +second):\n%s", d)
	}
}
