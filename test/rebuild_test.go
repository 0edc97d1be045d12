package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A release is built anew from an exported tar, by another state directory, without a
// network: the same comes out, and the rebuilder's statement counts on the server. Other
// sources give something else, which is refused and not signed.
func TestRebuild(t *testing.T) {
	keys := t.TempDir()
	t.Setenv("ASHLAR_KEYS", keys)
	a := newHost(t).guest()
	root := filepath.Join(keys, "trust.json")
	init := []string{"trust", "init", root, "--sign", filepath.Join(keys, "root.key"), "--log", strings.TrimSpace(a.ashlar("log", "key").ok().stdout)}
	for _, role := range []string{"root", "release", "builder", "rebuilder"} {
		a.ashlar("key", "new", filepath.Join(keys, role), "--no-passphrase").ok()
		init = append(init, "--add", role+"="+filepath.Join(keys, role))
	}
	a.ashlar(init...).ok()
	a.ashlar("trust", "install", root).ok()
	a.deploy()
	a.ashlar("verify", a.env, "--require", "rebuild").failed(fault.Refused.ExitCode(), "NOT done: rebuild")

	dir := t.TempDir()
	inputs := filepath.Join(dir, "inputs.tar")
	a.ashlar("export", "1", "--to", inputs).ok()
	elsewhere := func(file string, code int, words ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, "ashlar"), "rebuild", file, "--to", dir, "--dir", filepath.Join(dir, "state"))
		cmd.Env = append(os.Environ(), "GOPROXY=http://192.0.2.1", "https_proxy=http://192.0.2.1")
		out, _ := cmd.CombinedOutput() //nolint:errcheck // the status tells
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("exit status %d, want %d\n%s", got, code, out)
		}
		for _, w := range words {
			if !strings.Contains(string(out), w) {
				t.Errorf("it does not say %q:\n%s", w, out)
			}
		}
	}
	elsewhere(inputs, 0, "web  artifact", "the same")
	statement := filepath.Join(dir, "demo-web.rebuild.json")
	a.ashlar("statement", "attach", statement).ok().says("1 statement recorded and attached")
	a.ashlar("verify", a.env, "--trust-root", root, "--require", "rebuild,ledger,provenance").ok().says("rebuild", "by rebuilder")
	a.write("policy.yaml", "groups: {labs: [rebuilder]}\nrules:\n  same:\n    why: x\n    allow: rebuiltBy(1, \"labs\") && builtBy(\"builder\")\n")
	a.ashlar("policy", "test", a.env, "1", "--policy", "policy.yaml").ok().says("rebuilt: web by 1 of 1", "every component was built by builder")

	// The sources are not those of the release any more.
	if err := os.Remove(statement); err != nil {
		t.Fatal(err)
	}
	a.write("cmd/guest/more.go", "package main\n\nfunc init() { println(\"something else\") }\n")
	other := filepath.Join(dir, "other.tar")
	a.ashlar("export", "1", "--to", other).ok()
	elsewhere(other, fault.Refused.ExitCode(), "gave something else", "web: sha256:")
	t.Attr("refused", "gave something else <- other sources than the release's")
	if _, err := os.Stat(statement); err == nil {
		t.Error("what is another artifact was signed")
	}
}

const imagesYAML = `app: on
components:
  registry:
    build: [{image: {path: "docker://ADDRESS/mirror/web:stable"}}]
    run: RUN
  file:
    build: [{image: {path: ../base.tar}}]
    run: RUN
  dockerfile:
    build: [{dockerfile: {context: image}}]
    run: RUN
environments:
  production: {listen: "LISTEN"}
`

// What a release has of images goes with its inputs: of a registry, of a file elsewhere,
// and of a Dockerfile what it gave. So it is built anew without a network, without the
// program that builds Dockerfiles, and without any of the files.
func TestRebuildImages(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	d := newDepot(a)
	d.remote("push", "web", d.address+"/mirror/web:stable").ok()

	parent := t.TempDir()
	b := &app{host: a.host, dir: filepath.Join(parent, "app"), name: "on", env: "production"}
	if err := os.MkdirAll(filepath.Join(b.dir, "image"), 0o755); err != nil {
		t.Fatal(err)
	}
	a.ashlar("build", "--export", filepath.Join(parent, "base.tar")).ok()
	cmd := exec.Command("go", "build", "-o", filepath.Join(b.dir, "image", "web"), "./cmd/guest")
	cmd.Env = []string{"CGO_ENABLED=0"}
	a.run(cmd)().ok()
	b.write("image/Dockerfile", "FROM scratch\nCOPY web /usr/bin/web\n")
	run := `{command: [/usr/bin/web, serves], port: 8080, env: {MARK: "0"}, health: {http: /healthz}, tmpfs: {/tmp: 16MiB}}`
	b.write("ashlar.yaml", strings.NewReplacer("ADDRESS", d.address, "RUN", run, "LISTEN", freeAddress(t)).Replace(imagesYAML))
	cmd = exec.Command(filepath.Join(bin, "ashlar"), "deploy", "production", "--yes")
	cmd.Env = []string{"DOCKER_CONFIG=" + d.config, "SSL_CERT_FILE=" + filepath.Join(d.certs, "ca.crt"), "CONTAINERS_STORAGE_CONF=" + containerStorage(t)}
	b.run(cmd)().ok()

	inputs := filepath.Join(t.TempDir(), "inputs.tar")
	b.ashlar("export", "1", "--to", inputs).ok()
	for _, gone := range []string{filepath.Join(parent, "base.tar"), filepath.Join(b.dir, "image")} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}
	cmd = exec.Command(filepath.Join(bin, "ashlar"), "rebuild", inputs, "--dir", filepath.Join(t.TempDir(), "state"))
	cmd.Env = []string{"PATH=" + t.TempDir()}
	b.run(cmd)().ok().says("dockerfile  artifact sha256:", "file  artifact sha256:", "registry  artifact sha256:", "the same")

	// An image that is not here any more is missed when it is exported, not elsewhere.
	lock, err := os.ReadFile(filepath.Join(b.dir, "ashlar.lock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(string(lock)) {
		if hex, ok := strings.CutPrefix(strings.TrimSpace(line), "manifest: sha256:"); ok {
			if err := os.Remove(filepath.Join(a.host.dir, "objects", hex[:2], hex[2:])); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	b.ashlar("export", "1", "--to", inputs+".again").failed(fault.NotFound.ExitCode(), "the image sha256:", "is not on hand whole", "ashlar build")
}

// containerStorage is a configuration for podman and buildah with a place of its own.
func containerStorage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "root", "overlay"), syscall.MNT_DETACH) }) // it may not be mounted
	conf := filepath.Join(dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return conf
}
