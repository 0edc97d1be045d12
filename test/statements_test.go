package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const reproducedPolicy = `groups:
  rebuilders: [lab1, lab2]
rules:
  built:
    why: Only what the pipeline built.
    allow: builtBy("builder")
  reproduced:
    why: Two others got the same.
    allow: rebuiltBy(2, "rebuilders")
`

// witnessed is a guest whose production is to run only what was reproduced; keys of a
// builder and of rebuilders, and a trust root that the server has.
func (h *host) witnessed() *app {
	h.t.Helper()
	a := h.guest()
	h.t.Setenv("ASHLAR_KEYS", filepath.Join(a.dir, "keys"))
	if err := os.Mkdir(filepath.Join(a.dir, "keys"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for _, name := range []string{"root", "keys/release", "keys/builder", "keys/deployer", "lab1", "lab2", "mallory"} {
		a.ashlar("key", "new", "--no-passphrase", name).ok()
	}
	a.trusts("init", "trust.json", "--add", "root=root", "--add", "release=keys/release", "--add", "builder=keys/builder", "--add", "deployer=keys/deployer",
		"--add", "rebuilder=lab1", "--add", "rebuilder=lab2")
	a.write("policy.yaml", reproducedPolicy)
	a.ashlar("policy", "set", "production", "policy.yaml").ok()
	return a
}

// says signs what a rebuilder would say of an artifact, has it recorded, and gives the bundle.
func (a *app) says(key, about, predicate string, more ...string) string {
	a.t.Helper()
	a.write("predicate.json", predicate)
	args := []string{"statement", "sign", "--key", key + ".key", "--kind", "rebuild", "--about", about, "--predicate", "predicate.json"}
	return a.ashlar(append(args, more...)...).ok().stdout
}

// TestReproduced: production takes what the builder built and two rebuilders got too; what a
// rebuilder says otherwise counts for nothing. The second one pushes its statement to the
// registry, without being able to speak to the server: it is recorded when a policy meets it.
func TestReproduced(t *testing.T) {
	a := newHost(t).witnessed()
	a.ashlar("deploy", "production", "-y").failed(5, "rule reproduced: Two others got the same.", "rebuilt: web by 0 of 2")
	a.ashlar("policy", "test", "production", "1").failed(5, "reproduced").says("holds  built", "every component was built by builder", "fails  reproduced")
	a.write("other.yaml", "rules:\n  built:\n    why: x\n    allow: builtBy(\"mallory\")\n")
	a.ashlar("policy", "test", "production", "1", "--policy", "other.yaml").failed(5, "built").says("no provenance by mallory is believed of web")

	// One rebuilder says it twice, which is once.
	artifact, release := a.artifactOf("1"), a.releaseOf("1")
	said := func(release, rebuilt string) string {
		return fmt.Sprintf(`{"release":%q,"component":"web","rebuilt":%q,"inputs":"","ashlar":"","network":"denied"}`, release, rebuilt)
	}
	for range 2 {
		a.write("bundle.json", a.says("lab1", artifact, said(release, artifact)))
		a.ashlar("statement", "attach", "bundle.json").ok()
	}
	a.ashlar("policy", "test", "production", "1").failed(5, "reproduced").says("rebuilt: web by 1 of 2")

	// The other got something else, says nothing, or speaks of another release.
	other := "sha256:" + strings.Repeat("ab", 32)
	for predicate, why := range map[string]string{
		said(release, other):                   "the rebuild of web by lab2: something different came out",
		said(other, artifact):                  "it is of another release",
		"{}":                                   "it does not say what came out",
		`{"result":"same"}`:                    "it cannot be read",
		`{"verdict":"different","rebuilt":""}`: "it cannot be read",
	} {
		a.write("bundle.json", a.says("lab2", artifact, predicate))
		a.ashlar("statement", "attach", "bundle.json").ok()
		a.ashlar("policy", "test", "production", "1").failed(5, "reproduced").says("rebuilt: web by 1 of 2", why)
	}
	a.write("bundle.json", a.says("mallory", artifact, said(release, artifact)))
	a.ashlar("statement", "attach", "bundle.json").failed(5, "does not know the key")

	// It got the same, and pushes that.
	d := a.depot()
	d.refer("demo/web", artifact, a.says("mallory", artifact, said(release, artifact)))
	a.ashlar("policy", "test", "production", "1").failed(5, "reproduced").says("web by 1 of 2", "does not know the key")
	d.refer("demo/web", artifact, a.says("lab2", artifact, said(release, artifact), "--unrecorded"))
	a.ashlar("policy", "test", "production", "1").ok().says("rebuilt: web by 2 of 2", "it would be admitted")
	if e := a.entry("statement.logged"); e.Reason != "it was pushed without a proof" {
		t.Errorf("the record says %+v", e)
	}
	a.deploy()
	a.ashlar("verify", a.env, "--trust-root", "trust.json", "--require", "rebuild,verdict").ok().says("rebuild", "by lab1", "lab2", "it comes to the same in 2 rules")
	a.ashlar("gc").ok()
	a.ashlar("policy", "test", "production", "1").ok().says("rebuilt: web by 2 of 2")
}

// artifactOf and releaseOf name a release and what it is made of.
func (a *app) artifactOf(release string) string {
	a.t.Helper()
	var facts struct {
		Release struct{ Components []struct{ Artifact string } }
	}
	a.ashlar("policy", "facts", "production", release).ok().into(&facts)
	return facts.Release.Components[0].Artifact
}

func (a *app) releaseOf(release string) string {
	a.t.Helper()
	var facts struct{ Release struct{ Digest string } }
	a.ashlar("policy", "facts", "production", release).ok().into(&facts)
	return facts.Release.Digest
}

// open is `ashlar registry` on the loopback, where everybody on the machine may push.
type openDepot struct {
	*app
	url string
}

func (a *app) depot() openDepot {
	a.t.Helper()
	address := freeAddress(a.t)
	p := a.host.spawn("registry", "--listen", address)
	a.t.Cleanup(func() {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			a.t.Error(err)
		}
		<-p.done
	})
	d := openDepot{a, "http://" + address + "/v2/"}
	a.host.await("the registry", func() error {
		resp, err := http.Get(d.url)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return d
}

// send sends one request, which has to end with status 201 or, for GET, 200.
func (d openDepot) send(method, path, mediaType string, body []byte) []byte {
	d.t.Helper()
	req, err := http.NewRequest(method, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	if err = firstOf(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		d.t.Fatalf("%s %s: %s %v\n%s", method, path, resp.Status, err, answer)
	}
	return answer
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// refer pushes a statement as a referrer of an artifact, as any OCI client would.
func (d openDepot) refer(repository, artifact, bundle string) {
	d.t.Helper()
	const bundleType, manifestType = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.oci.image.manifest.v1+json"
	subject := d.send(http.MethodGet, repository+"/manifests/"+artifact, "", nil)
	blob := func(content []byte, mediaType string) map[string]any {
		name := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
		d.send(http.MethodPost, repository+"/blobs/uploads/?digest="+name, "application/octet-stream", content)
		return map[string]any{"mediaType": mediaType, "digest": name, "size": len(content)}
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "artifactType": bundleType,
		"config": blob([]byte("{}"), "application/vnd.oci.empty.v1+json"), "layers": []any{blob([]byte(strings.TrimSpace(bundle)), bundleType)},
		"subject": map[string]any{"mediaType": manifestType, "digest": artifact, "size": len(subject)},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.send(http.MethodPut, repository+"/manifests/"+fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), manifestType, raw)
}

// TestSummaries: a server that was given a deployer key signs what its policies verified:
// production takes what staging's verdict let in, a proof has it, and is judged again by
// whoever has the program for that, without a network. One without a key says so.
func TestSummaries(t *testing.T) {
	a := newHost(t).witnessed()
	a.edit("ashlar.yaml", "environments:\n", "environments:\n  staging:\n    listen: "+freeAddress(t)+"\n    replicas: 1\n")
	a.write("staging.yaml", "rules:\n  signed:\n    why: x\n    allow: signedBy(\"release\")\n")
	a.write("policy.yaml", "rules:\n  verified:\n    why: Staging's server looked at it.\n    allow: verifiedBy(\"deployer\", \"ashlar:demo/staging\")\n")
	a.ashlar("policy", "set", "staging", "staging.yaml").ok()
	a.ashlar("policy", "set", "production", "policy.yaml").ok()
	none := a.ashlar("policy", "show", "production").ok()
	none.shows(none.stderr, "its verdicts are not signed as verification summaries: the server has no deployer key")
	a.ashlar("doctor").ok().says("deployer key", "none: verdicts of policies are in the record")
	a.ashlar("deploy", "production", "-y").failed(5, "rule verified", "no summary for ashlar:demo/staging by deployer is believed of release 1")

	a.stop()
	a.flags = []string{"--deployer-key", filepath.Join(a.dir, "keys/deployer.key")}
	a.start()
	signs := a.ashlar("policy", "show", "production").ok()
	signs.shows(signs.stderr, "its verdicts are signed as verification summaries by the key")
	a.ashlar("doctor").ok().says("signs verification summaries")
	a.ashlar("deploy", "staging", "-y").ok()
	a.await("staging's verdict to be signed", func() error { return a.ashlar("policy", "test", "production", "1").problem() })
	a.ashlar("promote", "staging", "production", "-y").ok()
	a.ashlar("policy", "test", "production", "1").ok().says("release 1 is passed for ashlar:demo/staging by deployer, on ")
	a.await("production's to be signed", func() error {
		return a.ashlar("verify", a.env, "--trust-root", "trust.json", "--require", "summary,verdict").problem()
	})

	// Anybody's client finds it beside the image.
	if got := string(a.depot().send(http.MethodGet, "demo/web/referrers/"+a.artifactOf("1"), "", nil)); strings.Count(got, "https://slsa.dev/verification_summary/v1") != 2 {
		t.Errorf("beside the image there is %s", got)
	}

	// Elsewhere, with nothing but the file and a trust root.
	c := a.container(filepath.Join(a.dir, "trust.json"))
	a.ashlar("proof", a.env, "--to", filepath.Join(c.dir, "proof")).ok()
	c.verify("--require", "summary").ok("done +summary", "done +admission", "NOT done +verdict", "put ashlar-judge beside ashlar")
	c.verify("--require", "verdict").refused("NOT done: verdict")
	copyFile(t, filepath.Join(c.dir, "ashlar-judge"), filepath.Join(bin, "ashlar-judge"))
	if err := os.Chmod(filepath.Join(c.dir, "ashlar-judge"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.verify("--require", "summary,verdict").ok("done +verdict", "it comes to the same in 1 rules")

	// What was refused is said of the release alone.
	a.edit("ashlar.yaml", `MARK: "0"`, `MARK: "1"`)
	a.ashlar("deploy", "production", "-y").failed(5, "rule verified")
	a.await("the refusal to be signed", func() error {
		said := a.entry("summary.signed")
		return missing(said.Data["result"] == "FAILED" && said.Env == "production", "a summary of the refusal")
	})
	a.ashlar("verify", a.env, "--trust-root", "trust.json", "--require", "summary,verdict").ok()
}
