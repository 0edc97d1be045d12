// Package cosign_test asks the official cosign what it makes of statements that Ashlar
// signed: accepted with nothing but a key and our trusted root, and refused once
// anything is changed. `make test` builds cosign once and runs the short form, `make soak`
// all, as root, in a network namespace of its own, so that nothing can be asked of anybody.
package cosign_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// world is a server with keys and a trust root, and a registry.
type world struct {
	t        *testing.T
	dir      string
	registry string // host:port
	outside  bool   // ashlar runs in the network of who called the test, but for its registry; cosign never does
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return makeWorld(t, false)
}

func makeWorld(t *testing.T, outside bool) *world {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Fatalf("the test does not run in an empty network namespace: %v, %v; run it with  make soak", links, err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir, err := os.MkdirTemp("/tmp", "ash") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // it is in /tmp
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))}
	go server.Serve(l)                   //nolint:errcheck // it ends with the test
	t.Cleanup(func() { server.Close() }) //nolint:errcheck // likewise
	w := &world{t, dir, l.Addr().String(), outside}
	w.serve()
	for _, key := range []string{"root", "release", "builder", "deployer"} {
		w.ashlar("key", "new", key)
	}
	w.ashlar("trust", "init", "trust.json", "--sign", "root.key", "--add", "root=root", "--add", "release=release", "--add", "builder=builder", "--add", "deployer=deployer",
		"--log", strings.TrimSpace(w.ashlar("log", "key")))
	w.write("trusted_root.json", w.ashlar("trust", "show", "--sigstore", "trust.json"))
	return w
}

func (w *world) command(program string, args ...string) *exec.Cmd {
	path, err := filepath.Abs(filepath.Join("../../bin", program))
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	if w.outside && program == "ashlar" && args[0] != "registry" && args[0] != "push" {
		cmd = exec.Command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid()), path}, args...)...)
	}
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "ASHLAR_DIR="+filepath.Join(w.dir, "s"), "ASHLAR_KEYS="+w.dir, "ASHLAR_KEY_PASSPHRASE=secret", "COSIGN_PASSWORD=secret", "HOME="+w.dir)
	return cmd
}

// serve runs a server until the test ends.
func (w *world) serve() {
	w.t.Helper()
	cmd := w.command("ashlar", "server")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		if out, err := w.command("ashlar", "down", "--all", "--yes").CombinedOutput(); err != nil {
			w.t.Errorf("%v\n%s", err, out)
		}
		<-ended
	})
	for deadline := time.Now().Add(30 * time.Second); w.command("ashlar", "status").Run() != nil; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			w.t.Fatalf("the server ended: %v\n%s", err, said.String())
		default:
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the server does not answer")
		}
	}
}

func (w *world) ashlar(args ...string) string {
	w.t.Helper()
	cmd := w.command("ashlar", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("ashlar %v: %v\n%s", args, err, stderr.String())
	}
	return stdout.String()
}

func (w *world) write(file, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, file), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// image pushes an image that nobody has seen before.
func (w *world) image(repository string) (name.Digest, v1.Image) {
	w.t.Helper()
	img, err := random.Image(100, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		w.t.Fatal(err)
	}
	ref, err := name.NewDigest(w.registry + "/" + repository + "@" + d.String())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		w.t.Fatal(err)
	}
	return ref, img
}

// say signs a statement and gives the bundle.
func (w *world) say(key, kind, about, predicate string) []byte {
	w.t.Helper()
	w.write("predicate.json", predicate)
	return []byte(w.ashlar("statement", "sign", "--key", key+".key", "--kind", kind, "--about", about, "--predicate", "predicate.json"))
}

// artifact is an OCI 1.1 manifest with a subject, which referrers are.
type artifact struct {
	v1.Image
	raw []byte
}

func (a artifact) RawManifest() ([]byte, error)        { return a.raw, nil }
func (a artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// attach pushes a bundle as a referrer of an image.
func (w *world) attach(ref name.Digest, img v1.Image, bundle []byte) {
	w.t.Helper()
	w.attachRaw(ref, img, bundle, predicateType(w.t, bundle))
}

// sized is an image or an index.
type sized interface{ Size() (int64, error) }

// attachRaw pushes what need not be a bundle any more.
func (w *world) attachRaw(ref name.Digest, img sized, bundle []byte, says string) {
	w.t.Helper()
	layer, config := static.NewLayer(bundle, bundleType), static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	for _, l := range []v1.Layer{layer, config} {
		if err := remote.WriteLayer(ref.Context(), l); err != nil {
			w.t.Fatal(err)
		}
	}
	size, err := img.Size()
	if err != nil {
		w.t.Fatal(err)
	}
	subject, err := v1.NewHash(ref.DigestStr())
	if err != nil {
		w.t.Fatal(err)
	}
	type descriptor struct {
		MediaType types.MediaType `json:"mediaType"`
		Digest    v1.Hash         `json:"digest"`
		Size      int64           `json:"size"`
	}
	described := func(l v1.Layer) descriptor {
		m, _ := l.MediaType() //nolint:errcheck // of static bytes
		d, _ := l.Digest()    //nolint:errcheck // likewise
		n, _ := l.Size()      //nolint:errcheck // likewise
		return descriptor{m, d, n}
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": bundleType,
		"config": described(config), "layers": []descriptor{described(layer)}, "subject": descriptor{types.DockerManifestSchema2, subject, size},
		"annotations": map[string]string{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": says},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	d, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := remote.Put(ref.Context().Digest(d.String()), artifact{raw: raw}); err != nil {
		w.t.Fatal(err)
	}
}

func predicateType(t *testing.T, bundle []byte) string {
	t.Helper()
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	var s struct {
		PredicateType string `json:"predicateType"`
	}
	if err := errors.Join(json.Unmarshal(bundle, &b), json.Unmarshal(b.Envelope.Payload, &s)); err != nil {
		t.Fatal(err)
	}
	return s.PredicateType
}

// accepted and refused ask cosign; a refusal has to say why in these words.
func (w *world) accepted(what string, args ...string) {
	w.t.Helper()
	if out, err := w.command("cosign", args...).CombinedOutput(); err != nil {
		w.t.Errorf("%s: cosign %v: %v\n%s", what, args, err, out)
	}
}

func (w *world) refused(what, why string, args ...string) {
	w.t.Helper()
	out, err := w.command("cosign", args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), why) {
		w.t.Errorf("%s: cosign %v: %v, want a refusal that says %q\n%s", what, args, err, why, out)
	}
}

// What cosign says.
const (
	notInLog      = "does not match expected root" // of the leaf that it makes of key, signature and statement
	notTheLog     = "note has no verifiable signatures"
	noLog         = "not enough verified log entries"
	otherArtifact = "provided artifact digest does not match any digest in statement"
	noSignature   = "no signatures found"
)

// statements are kinds that cosign knows, as it calls them, and by whom they are.
var statements = []struct{ kind, cosign, key, predicate string }{
	{"provenance", "slsaprovenance1", "builder", `{"buildDefinition": {"buildType": "https://example.com/b", "externalParameters": {}, "resolvedDependencies": []}, "runDetails": {"builder": {"id": "https://example.com/w"}}}`},
	{"spdx", "spdxjson", "builder", `{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "app", "packages": []}`},
	{"cyclonedx", "cyclonedx", "builder", `{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}`},
	{"vex", "openvex", "release", `{"@context": "https://openvex.dev/ns/v0.2.0", "statements": []}`},
}

// long leaves a test to `make soak`.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("make soak runs it")
	}
}

// cosign verify and verify-attestation accept an image's signature and attestations
// from a registry.
func TestImages(t *testing.T) {
	long(t)
	w := newWorld(t)
	ref, img := w.image("app")
	w.attach(ref, img, w.say("release", "signature", ref.DigestStr(), "{}"))
	for _, s := range statements {
		w.attach(ref, img, w.say(s.key, s.kind, ref.DigestStr(), s.predicate))
	}
	verify := func(key, image string) []string {
		return []string{"verify", "--key", key + ".pub", "--trusted-root", "trusted_root.json", image}
	}
	w.accepted("the signature", verify("release", ref.String())...)
	w.refused("a key of another", notInLog, verify("root", ref.String())...)
	unsigned, _ := w.image("app")
	w.refused("an image without a signature", noSignature, verify("release", unsigned.String())...)
	other, otherImage := w.image("other")
	w.attach(other, otherImage, w.say("release", "signature", ref.DigestStr(), "{}"))
	w.refused("the signature of another image", otherArtifact, verify("release", other.String())...)
	attested := func(key, kind, image string) []string {
		return []string{"verify-attestation", "--key", key + ".pub", "--trusted-root", "trusted_root.json", "--type", kind, image}
	}
	for _, s := range statements {
		w.accepted(s.kind, attested(s.key, s.cosign, ref.String())...)
		elsewhere, elsewhereImage := w.image("other")
		w.attach(elsewhere, elsewhereImage, w.say(s.key, s.kind, ref.DigestStr(), s.predicate))
		w.refused(s.kind+" of another image", otherArtifact, attested(s.key, s.cosign, elsewhere.String())...)
	}
}

// A bundle beside a file is accepted, and refused with any of its parts changed.
func TestBundles(t *testing.T) {
	long(t)
	w := newWorld(t)
	w.write("file", "hello\n")
	const about = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	good := w.say("builder", "provenance", about, statements[0].predicate)
	verify := func(bundle []byte, key, root string) []string {
		w.write("bundle.json", string(bundle))
		return []string{"verify-blob-attestation", "--key", key + ".pub", "--bundle", "bundle.json", "--trusted-root", root, "--type", "slsaprovenance1", "file"}
	}
	w.accepted("as it should be", verify(good, "builder", "trusted_root.json")...)
	w.refused("another key", notInLog, verify(good, "release", "trusted_root.json")...)
	w.refused("no proof", noLog, verify([]byte(w.ashlar("statement", "sign", "--unrecorded", "--key", "builder.key", "--kind", "provenance", "--about", about)), "builder", "trusted_root.json")...)
	for _, c := range []struct {
		what, why string
		path      []string
	}{
		{"the statement", notInLog, []string{"dsseEnvelope", "payload"}},
		{"the checkpoint", notTheLog, []string{"verificationMaterial", "tlogEntries", "inclusionProof", "checkpoint", "envelope"}},
		{"a hash of the proof", notInLog, []string{"verificationMaterial", "tlogEntries", "inclusionProof", "hashes"}},
	} {
		w.refused("changed: "+c.what, c.why, verify(changed(t, good, c.path), "builder", "trusted_root.json")...)
	}
	// A log that the trusted root does not know.
	w.ashlar("trust", "init", "other.json", "--sign", "root.key", "--add", "root=root")
	w.write("other_root.json", w.ashlar("trust", "show", "--sigstore", "other.json"))
	w.refused("an unknown log", noLog, verify(good, "builder", "other_root.json")...)
}

// changed changes one character of a text within a JSON document.
func changed(t *testing.T, document []byte, path []string) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(document, &root); err != nil {
		t.Fatal(err)
	}
	at := root
	for _, step := range path[:len(path)-1] {
		if list, ok := at.([]any); ok {
			at = list[0]
		}
		at = at.(map[string]any)[step]
	}
	if list, ok := at.([]any); ok {
		at = list[0]
	}
	object, last := at.(map[string]any), path[len(path)-1]
	switch v := object[last].(type) {
	case string:
		object[last] = other(v)
	case []any:
		v[0] = other(v[0].(string))
	default:
		t.Fatal(fmt.Sprintf("%v is %T", path, v))
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func other(text string) string {
	i := len(text) / 2
	c := byte('A')
	if text[i] == c {
		c = 'B'
	}
	return text[:i] + string(c) + text[i+1:]
}
