package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An application for two architectures goes to a registry as one index, signed, with all
// that is said about it; skopeo copies it whole there and back, and so do we.
func TestIndex(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a := h.guest()
	a.edit("ashlar.yaml", "app: demo\n", "app: demo\nplatforms: [linux/amd64, linux/arm64]\n")
	// The same program in both: to compile all of Go's library for the other takes minutes.
	a.edit("ashlar.yaml", `go: {package: ./cmd/guest, ldflags: ["-s", "-w"]}`, `files: {from: guest, to: /usr/bin/web, mode: "0755"}`)
	compile := exec.Command("go", "build", "-o", "guest", "./cmd/guest")
	compile.Dir, compile.Env = a.dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	keys := t.TempDir()
	for _, role := range []string{"release", "builder"} {
		a.ashlar("key", "new", filepath.Join(keys, role), "--no-passphrase").ok()
	}
	a.deploy().ok()
	build := exec.Command(filepath.Join(bin, "ashlar"), "build", "--sign", "--output", "json")
	build.Env = []string{"ASHLAR_KEYS=" + keys}
	var built struct{ Components []struct{ Index string } }
	if err := json.Unmarshal([]byte(a.run(build)().ok().stdout), &built); err != nil || len(built.Components) != 1 {
		t.Fatal(err, built)
	}
	index := built.Components[0].Index
	d := newDepot(a)

	// One signature of each artifact and of the index; provenance and two SBOMs of each artifact.
	const whole = "2 images"
	d.remote("push", "1/web", d.address+"/mirror/web:stable").ok().says(d.address+"/mirror/web@"+index, whole, "9 statements")
	raw := func(image string) string {
		t.Helper()
		out := d.tool("skopeo", "inspect", "--raw", "--creds", "reader:pass word", "--cert-dir", d.certs, "docker://"+d.address+"/"+image)
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(out))); got != index {
			t.Errorf("%s is %s, want %s\n%s", image, got, index, out)
		}
		return out
	}
	var list struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal([]byte(raw("mirror/web:stable")), &list); err != nil || len(list.Manifests) != 2 {
		t.Fatal(err, list)
	}

	layout := "oci:" + t.TempDir() + ":1"
	ours := "docker://" + d.address
	for _, c := range [][2]string{
		{ours + "/mirror/web:stable", layout}, {layout, ours + "/copied/web:1"}, {ours + "/mirror/web:stable", ours + "/direct/web:1"},
	} {
		if err := d.skopeo("writer:"+d.token, c[0], c[1], "--all"); err != nil {
			t.Fatal(err)
		}
	}
	raw("copied/web:1")
	raw("direct/web:1")

	other := t.TempDir()
	d.remote("pull", d.address+"/copied/web:1", "--all", "--dir", other).ok().says(whole, "9 statements") // whatever is said of an artifact refers to it in each repository that has it
	d.remote("pull", d.address+"/mirror/web:stable", "--all", "--dir", other).ok().says(index, whole, "9 statements")
	d.remote("push", index, d.address+"/again/web:1", "--dir", other).ok().says(whole, "9 statements")
	raw("again/web:1")

	// One of them, and that of this machine alone.
	for _, m := range list.Manifests {
		third := t.TempDir()
		d.remote("pull", d.address+"/mirror/web:stable", "--arch", m.Platform.Architecture, "--dir", third).ok().says("5 statements")
		d.remote("push", m.Digest, d.address+"/one/web:"+m.Platform.Architecture, "--dir", third).ok().says("4 statements")
		d.remote("push", index, d.address+"/half/web:1", "--dir", third).failed(3, "is not here", "--all")
	}
	// What was pushed outlives the collection of garbage, whole.
	a.ashlar("gc").ok()
	if err := d.skopeo("reader:pass word", ours+"/again/web:1", "dir:"+t.TempDir(), "--all"); err != nil {
		t.Error(err)
	}
}
