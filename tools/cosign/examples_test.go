package cosign_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// What `ashlar deploy` made and signed of the examples, served by `ashlar registry`,
// is accepted by cosign in an empty network namespace: the signature, the provenance, both
// bills of materials, and the server's verification summary. With one character of any of them
// changed it is refused.
func TestExamples(t *testing.T) {
	long(t)
	w := makeWorld(t, true)
	store := w.serveRegistry()
	for _, example := range []string{"hello", "site"} {
		w.deploy(example)
		for component, artifact := range w.live(example) {
			ref, err := name.NewDigest(store + "/" + example + "/" + component + "@" + artifact)
			if err != nil {
				t.Fatal(err)
			}
			w.accepted(example+": the signature", "verify", "--key", "release.pub", "--trusted-root", "trusted_root.json", ref.String())
			w.refused(example+": the signature by another key", notInLog, "verify", "--key", "root.pub", "--trusted-root", "trusted_root.json", ref.String())
			w.awaitStatements(ref, 5) // the server signs by itself, after the deploy
			for kind, key := range map[string]string{"slsaprovenance1": "builder", "spdxjson": "builder", "cyclonedx": "builder", summaryType: "deployer"} {
				w.accepted(example+": "+kind, "verify-attestation", "--key", key+".pub", "--trusted-root", "trusted_root.json", "--type", kind, ref.String())
			}
			w.refused(example+": the summary by another key", "none of the attestations matched the predicate type", "verify-attestation", "--key", "builder.pub", "--trusted-root", "trusted_root.json", "--type", summaryType, ref.String())
			w.refusesChanged(example, ref, 5)
		}
	}
}

// serveRegistry serves the state directory in this network namespace.
func (w *world) serveRegistry() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		w.t.Fatal(err)
	}
	cmd := w.command("ashlar", "registry", "--listen", address)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt) //nolint:errcheck // Wait tells
		cmd.Wait()                       //nolint:errcheck // it was asked to end
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil {
			resp.Body.Close() //nolint:errcheck // only that it answers counts
			return address
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the registry does not answer\n%s", said.String())
		}
	}
}

// deploy deploys an example on addresses that are free.
func (w *world) deploy(example string) {
	w.t.Helper()
	dir := filepath.Join(w.dir, example)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../examples", example))); err != nil {
		w.t.Fatal(err)
	}
	w.write(filepath.Join(example, "go.mod"), "module example\n\ngo 1.26\n")
	text, err := os.ReadFile(filepath.Join(dir, "ashlar.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	port := 21000 + os.Getpid()%20000
	text = regexp.MustCompile(`listen: 127\.0\.0\.1:\d+`).ReplaceAllFunc(text, func([]byte) []byte {
		port++
		return []byte("listen: 127.0.0.1:" + decimal(port))
	})
	w.write(filepath.Join(example, "ashlar.yaml"), string(text))
	w.write("policy.yaml", "rules:\n  any:\n    why: It is about what is said of it.\n    allow: release.number > 0\n")
	w.ashlar("policy", "set", "production", "policy.yaml", "--file", filepath.Join(example, "ashlar.yaml"))
	w.ashlar("deploy", "production", "--yes", "--file", filepath.Join(example, "ashlar.yaml"))
}

func decimal(n int) string {
	text, _ := json.Marshal(n) //nolint:errcheck // of a number
	return string(text)
}

// live gives the artifacts of an application, by component.
func (w *world) live(app string) map[string]string {
	w.t.Helper()
	var built struct {
		Components []struct{ Name, Artifact string }
	}
	if err := json.Unmarshal([]byte(w.ashlar("build", "--locked", "--output", "json", "--file", filepath.Join(app, "ashlar.yaml"))), &built); err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range built.Components {
		out[c.Name] = c.Artifact
	}
	return out
}

// refusesChanged brings the image to the other registry with its statements, of which there
// are so many, changed by one character each, one statement at a time.
func (w *world) refusesChanged(example string, from name.Digest, want int) {
	w.t.Helper()
	img, err := remote.Image(from)
	if err != nil {
		w.t.Fatal(err)
	}
	list := w.statements(from)
	if len(list) != want {
		w.t.Errorf("%s has %d statements, want %d", example, len(list), want)
	}
	for i, d := range list {
		bundle := w.bundle(from, d)
		for _, path := range [][]string{{"dsseEnvelope", "payload"}, {"dsseEnvelope", "signatures", "sig"}} {
			to, err := name.NewDigest(w.registry + "/" + example + decimal(i) + path[len(path)-1] + "@" + from.DigestStr())
			if err != nil {
				w.t.Fatal(err)
			}
			to = to.Context().Digest(from.DigestStr())
			if err := remote.Write(to, img); err != nil {
				w.t.Fatal(err)
			}
			w.attachRaw(to, img, changed(w.t, bundle, path), predicateType(w.t, bundle))
			args := []string{"verify", "--key", "release.pub", "--trusted-root", "trusted_root.json", to.String()}
			if kind, ok := kinds[predicateType(w.t, bundle)]; ok {
				key := "builder.pub"
				if kind == summaryType {
					key = "deployer.pub"
				}
				args = []string{"verify-attestation", "--key", key, "--trusted-root", "trusted_root.json", "--type", kind, to.String()}
			}
			w.refused(example+": "+predicateType(w.t, bundle)+" with another "+path[len(path)-1], "", args...)
		}
	}
}

// statements lists what refers to an image.
func (w *world) statements(about name.Digest) []v1.Descriptor {
	w.t.Helper()
	index, err := remote.Referrers(about)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Manifests
}

// awaitStatements waits until there are so many.
func (w *world) awaitStatements(about name.Digest, n int) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(w.statements(about)) < n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s has %d statements, want %d", about, len(w.statements(about)), n)
		}
	}
}

// summaryType is the predicate type of verification summaries, for which cosign has no name.
const summaryType = "https://slsa.dev/verification_summary/v1"

// kinds are what cosign calls predicate types.
var kinds = map[string]string{"https://slsa.dev/provenance/v1": "slsaprovenance1", "https://spdx.dev/Document": "spdxjson", "https://cyclonedx.org/bom": "cyclonedx", summaryType: summaryType}

// bundle reads the statement of a referrer.
func (w *world) bundle(about name.Digest, d v1.Descriptor) []byte {
	w.t.Helper()
	manifest, err := remote.Image(about.Context().Digest(d.Digest.String()))
	if err != nil {
		w.t.Fatal(err)
	}
	layers, err := manifest.Layers()
	if err != nil || len(layers) != 1 {
		w.t.Fatal(err, len(layers))
	}
	r, err := layers[0].Compressed()
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return []byte(strings.TrimSpace(string(text)))
}
