package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// depot is `ashlar registry` with TLS and users, beside a server.
type depot struct {
	*app
	address string
	certs   string // directory with ca.crt, as skopeo and podman want it
	config  string // of Docker's kind, with the writer's token
	token   string // of the writer
	process *process
}

// newDepot starts a registry for the state directory of a, with a reader "reader" whose
// password is "pass word" and a writer "writer".
func newDepot(a *app) *depot {
	a.t.Helper()
	d := &depot{app: a, address: freeAddress(a.t), certs: a.t.TempDir(), config: a.t.TempDir()}
	cert, key := loopbackCertificate(a.t, d.certs)
	users := filepath.Join(a.t.TempDir(), "users")
	cmd := exec.Command(filepath.Join(bin, "ashlar"), "registry", "user", "reader", "--users", users)
	cmd.Stdin = strings.NewReader("pass word\n")
	a.run(cmd)().ok()
	d.token = strings.TrimSpace(a.ashlar("registry", "user", "writer", "--write", "--token", "--users", users).ok().stdout)
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{d.address: map[string]string{"username": "writer", "password": d.token}}})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.config, "config.json"), raw, 0o600); err != nil {
		a.t.Fatal(err)
	}
	d.process = a.host.spawn("registry", "--listen", d.address, "--users", users, "--tls-certificate", cert, "--tls-key", key)
	a.t.Cleanup(func() {
		if err := d.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			a.t.Error(err)
		}
		<-d.process.done
		if d.process.err != nil {
			a.t.Errorf("the registry ends with %v", d.process.err)
		}
	})
	a.host.await("the registry", func() error {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return d
}

// remote runs a command of ours with the credentials and the CA.
func (d *depot) remote(args ...string) result {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "ashlar"), args...)
	cmd.Env = []string{"DOCKER_CONFIG=" + d.config, "SSL_CERT_FILE=" + filepath.Join(d.certs, "ca.crt")}
	return d.run(cmd)()
}

// skopeo copies an image, or fails and says why.
func (d *depot) skopeo(user, from, to string, flags ...string) error {
	args := []string{"--insecure-policy", "copy", "--preserve-digests", from, to}
	for i, side := range []string{"src", "dest"} {
		if strings.HasPrefix(args[3+i], "docker:") {
			args = append(args, "--"+side+"-creds", user, "--"+side+"-cert-dir", d.certs)
		}
	}
	args = append(args, flags...)
	out, err := exec.CommandContext(d.t.Context(), "skopeo", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("skopeo %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// digest is the digest that a reference of the registry leads to.
func (d *depot) digest(reference string) string {
	d.t.Helper()
	out := d.tool("skopeo", "inspect", "--creds", "reader:pass word", "--cert-dir", d.certs, "--format", "{{.Digest}}", "docker://"+d.address+"/"+reference)
	return strings.TrimSpace(out)
}

// Other people's programs pull what Ashlar built and push what they have, over TLS and
// with credentials; our own push and pull agree with them.
func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"skopeo", "podman"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing:  apt-get install %s", tool, tool)
		}
	}
	h := newHost(t)
	a := h.guest()
	a.deploy().ok()
	d := newDepot(a)
	artifact := a.artifact("web")
	reader, writer := "reader:pass word", "writer:"+d.token
	ours, dir := "docker://"+d.address+"/demo/web:1", t.TempDir()

	t.Run("skopeo", func(t *testing.T) {
		for name, c := range map[string]struct{ user, from, to, says string }{
			"a stranger pulls":            {"stranger:x", ours, "dir:" + dir + "/a", "unauthorized"},
			"a wrong password pulls":      {"reader:x", ours, "dir:" + dir + "/b", "unauthorized"},
			"a reader pushes":             {reader, ours, "docker://" + d.address + "/copied/web:1", "denied"},
			"a writer writes a release":   {writer, ours, "docker://" + d.address + "/demo/web:2", "denied"},
			"a reader pulls what is none": {reader, "docker://" + d.address + "/demo/web:3", "dir:" + dir + "/c", "manifest unknown"},
		} {
			if err := d.skopeo(c.user, c.from, c.to); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, c := range [][3]string{
			{reader, ours, "oci:" + dir + "/layout:1"},
			{writer, "oci:" + dir + "/layout:1", "docker://" + d.address + "/copied/web:1"},
			{writer, ours, "docker://" + d.address + "/direct/web:1"},
			{reader, "docker://" + d.address + "/copied/web:1", "dir:" + dir + "/back"},
		} {
			if err := d.skopeo(c[0], c[1], c[2]); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"demo/web:1", "copied/web:1", "direct/web:1"} {
			if got := d.digest(name); got != artifact {
				t.Errorf("%s is %s, want %s", name, got, artifact)
			}
		}
	})

	t.Run("podman", func(t *testing.T) {
		store, err := os.MkdirTemp("/tmp", "pod") // podman wants short paths
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(store); err != nil {
				t.Error(err)
			}
		})
		podman := func(args ...string) string {
			return d.tool(append([]string{"podman", "--root", store + "/root", "--runroot", store + "/run", "--storage-driver", "vfs"}, args...)...)
		}
		podman("pull", "--creds", reader, "--cert-dir", d.certs, d.address+"/demo/web:1")
		id := strings.TrimSpace(podman("images", "-q", "--no-trunc"))
		podman("push", "--creds", writer, "--cert-dir", d.certs, d.address+"/demo/web:1", d.address+"/podman/web:mine")
		podman("rmi", "-a")
		podman("pull", "--creds", reader, "--cert-dir", d.certs, d.address+"/podman/web:mine")
		if again := strings.TrimSpace(podman("images", "-q", "--no-trunc")); again != id {
			t.Errorf("podman's image was %s and comes back as %s", id, again)
		}
	})

	t.Run("ours", func(t *testing.T) {
		d.remote("push", "production", d.address+"/mirror").ok().says(d.address + "/mirror@" + artifact)
		if got := d.digest("mirror:1"); got != artifact {
			t.Errorf("what is pushed is %s, want %s", got, artifact)
		}
		d.remote("push", "1/web", d.address+"/mirror/web:stable").ok()
		d.remote("push", "web", d.address+"/mirror/web:again").ok().says(" 0 B sent")
		d.remote("push", "nothing", d.address+"/mirror").failed(3, `"nothing" is no environment`)
		other := t.TempDir()
		d.remote("pull", d.address+"/mirror/web:stable", "--dir", other).ok().says(artifact, "1 layer")
		d.remote("pull", d.address+"/podman/web:mine", "--dir", other).ok()
		d.ashlar("pull", d.address+"/mirror/web:stable", "--dir", other).failed(6)
	})

	t.Run("build", func(t *testing.T) {
		place, other := t.TempDir(), t.TempDir()
		yaml := filepath.Join(place, "ashlar.yaml")
		text := "app: on\ncomponents:\n  web:\n    build:\n      - image: {path: \"docker://" + d.address + "/mirror/web:stable\"}\nenvironments:\n  production: {}\n"
		if err := os.WriteFile(yaml, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d.ashlar("build", "--file", yaml, "--dir", other).failed(6)
		d.remote("build", "--file", yaml, "--dir", other).ok()
		if lock, err := os.ReadFile(filepath.Join(place, "ashlar.lock")); err != nil || !strings.Contains(string(lock), artifact) {
			t.Errorf("the lock does not name %s (%v):\n%s", artifact, err, lock)
		}
		d.ashlar("build", "--file", yaml, "--dir", other, "--locked").ok().says("unchanged")
		d.remote("build", "--file", yaml, "--dir", t.TempDir(), "--locked").ok()
	})

	// What is tagged outlives the collection of garbage.
	a.ashlar("gc").ok()
	for _, name := range []string{"demo/web:1", "copied/web:1", "mirror/web:stable"} {
		if got := d.digest(name); got != artifact {
			t.Errorf("after gc %s is %s, want %s", name, got, artifact)
		}
	}
	if err := d.skopeo(reader, "docker://"+d.address+"/podman/web:mine", "dir:"+dir+"/after"); err != nil {
		t.Error(err)
	}
}

// artifact is the digest of a component's artifact that is live.
func (a *app) artifact(component string) string {
	a.t.Helper()
	rel, err := a.host.client.Release(a.t.Context(), a.name, string(a.status().State.Current.Release))
	if err != nil {
		a.t.Fatal(err)
	}
	return rel.Release.Environments[a.env].Components[component].Spec.Artifact.String()
}

// loopbackCertificate makes a certificate for 127.0.0.1 that signs itself.
func loopbackCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "ca.crt"), filepath.Join(t.TempDir(), "tls.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
