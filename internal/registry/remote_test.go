package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func quiet(Moved) {}

func (w *world) host() string { return strings.TrimPrefix(w.url, "http://") }

// bundle is a signature of an artifact.
func bundle(t *testing.T, about digest.Digest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kind, _ := trust.KindOf("signature")
	s, err := trust.NewStatement(kind, "", about, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.Sign(s, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestThereAndBack: an artifact goes to another registry with its statements, and
// comes back into another store, where everything is what it was; the second time
// nothing is moved.
func TestThereAndBack(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	home, other := newWorld(t), newWorld(t)
	manifest, layer, tar := home.build("a file", strings.Repeat("another\n", 10000))
	if _, err := referrer.Attach(home.objects, manifest, bundle(t, manifest)); err != nil {
		t.Fatal(err)
	}
	to := other.host() + "/team/web:7"
	out, err := Push(t.Context(), home.objects, manifest, to, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if out.Statements != 1 || out.Bytes < layer.Size || out.Reference != other.host()+"/team/web@"+manifest.String() {
		t.Errorf("%+v", out)
	}
	if got := other.want(http.StatusOK, "GET", "/v2/team/web/blobs/"+layer.Digest.String(), ""); got.body != tar {
		t.Error("the layer differs")
	}
	if got := other.want(http.StatusOK, "GET", "/v2/team/web/referrers/"+manifest.String(), ""); strings.Count(got.body, bundleType) != 1 {
		t.Errorf("referrers: %s", got.body)
	}
	if again, err := Push(t.Context(), home.objects, manifest, to, quiet); err != nil || again.Bytes != 0 {
		t.Errorf("the second time %d bytes are sent (%v)", again.Bytes, err)
	}

	away := newWorld(t)
	for i := range 2 {
		f, err := Fetch(t.Context(), away.objects, to, "amd64", false, quiet)
		if err == nil {
			err = FetchStatements(t.Context(), away.objects, &f)
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Manifest != manifest || len(f.Layers) != 1 || f.Layers[0].Digest != layer.Digest || f.Statements != 1 || (f.Bytes == 0) != (i == 1) {
			t.Errorf("%+v", f)
		}
		all, err := referrer.Of(away.objects, manifest)
		if err != nil || len(all) != 1 {
			t.Errorf("%d statements (%v)", len(all), err)
		}
		away.want(http.StatusOK, "GET", "/v2/"+f.Repository+"/manifests/7", "")
	}
	if got, err := away.objects.ReadAll(layer.Digest, 1<<20); err != nil || string(got) != tar {
		t.Errorf("the layer comes back with %d bytes (%v)", len(got), err)
	}
	// What was fetched can be pushed on.
	if _, err := Push(t.Context(), away.objects, manifest, other.host()+"/again:1", quiet); err != nil {
		t.Error(err)
	}
}

// TestFallback: a registry that does not list referrers gets statements under the
// fallback tag, and they are found there.
func TestFallback(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	home, other := newWorld(t), newWorld(t)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		other.server.ServeHTTP(w, r)
	}))
	defer old.Close()
	manifest, _, _ := home.build("a file")
	if _, err := referrer.Attach(home.objects, manifest, bundle(t, manifest)); err != nil {
		t.Fatal(err)
	}
	to := strings.TrimPrefix(old.URL, "http://") + "/web:7"
	if _, err := Push(t.Context(), home.objects, manifest, to, quiet); err != nil {
		t.Fatal(err)
	}
	other.want(http.StatusOK, "GET", "/v2/web/manifests/sha256-"+manifest.Encoded(), "")
	away := newWorld(t)
	f, err := Fetch(t.Context(), away.objects, to, "amd64", false, quiet)
	if err == nil {
		err = FetchStatements(t.Context(), away.objects, &f)
	}
	if err != nil || f.Statements != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestHostileRegistry: what a registry serves is not believed, and leaves nothing that
// has a name.
func TestHostileRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	good := newWorld(t)
	manifest := good.manifest("web", "layer")
	good.put("web", "t", manifest)
	layer := digest.FromString("layer")
	serve := func(change func(w http.ResponseWriter, r *http.Request) bool) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !change(w, r) {
				good.server.ServeHTTP(w, r)
			}
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	instead := func(path, body, kind string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, body)
			return true
		}
	}
	image := ocispec.MediaTypeImageManifest
	for name, c := range map[string]struct {
		change func(w http.ResponseWriter, r *http.Request) bool
		ref    string
		says   string
	}{
		"another layer":           {instead(layer.String(), "other", ""), "/web:t", "checksum"},
		"a longer layer":          {instead(layer.String(), "layer and more", ""), "/web:t", ""},
		"a layer without end":     {instead(layer.String(), strings.Repeat("x", 10<<20), ""), "/web:t", ""},
		"another manifest":        {instead("/manifests/"+digest.FromString(manifest).String(), strings.Replace(manifest, "{", "{ ", 1), image), "/web@" + digest.FromString(manifest).String(), "digest"},
		"a manifest that is two":  {instead("/manifests/t", strings.Replace(manifest, `"layers"`, `"manifests":[],"layers"`, 1), image), "/web:t", "at once"},
		"HTML":                    {instead("/manifests/t", "<html>", "text/html"), "/web:t", ""},
		"a size that is a lie":    {instead("/manifests/t", strings.Replace(manifest, `"size":5`, `"size":6`, 1), image), "/web:t", "bytes"},
		"an image of a petabyte":  {instead("/manifests/t", strings.Replace(manifest, `"size":5`, `"size":1000000000000000`, 1), image), "/web:t", "too large"},
		"a digest that is a path": {instead("/manifests/t", strings.Replace(manifest, layer.String(), "sha256:../../x", 1), image), "/web:t", "digest"},
		"a layer from elsewhere":  {instead("/manifests/t", strings.Replace(manifest, ocispec.MediaTypeImageLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar", 1), image), "/web:t", "elsewhere"},
		"a redirect off the machine": {func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			http.Redirect(w, r, "http://192.0.2.1/x", http.StatusTemporaryRedirect)
			return true
		}, "/web:t", "without TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := object.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer objects.Close()
			_, err = Fetch(t.Context(), objects, serve(c.change)+c.ref, "amd64", false, quiet)
			if err == nil || !strings.Contains(strings.Join(append([]string{err.Error()}, fault.Of(err).Details...), " "), c.says) {
				t.Errorf("it is fetched, or refused for something else: %v", err)
			}
			if err := objects.Walk(func(d digest.Digest, _ int64) error { return fmt.Errorf("%s is left", d) }); err != nil {
				t.Error(err)
			}
			if names, err := repositories(objects); err != nil || len(names) > 0 {
				t.Errorf("%q are left (%v)", names, err)
			}
		})
	}
	// So it was what they did.
	away := newWorld(t)
	if _, err := Fetch(t.Context(), away.objects, serve(func(http.ResponseWriter, *http.Request) bool { return false })+"/web:t", "amd64", false, quiet); err != nil {
		t.Error(err)
	}
}

// TestBrokenOff: a blob that breaks off is fetched again.
func TestBrokenOff(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	good := newWorld(t)
	content := strings.Repeat("layer", 100000)
	good.put("web", "t", good.manifest("web", content))
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" && strings.HasSuffix(r.URL.Path, digest.FromString(content).String()) && asked.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = io.WriteString(w, content[:1000])
			panic(http.ErrAbortHandler)
		}
		good.server.ServeHTTP(w, r)
	}))
	defer s.Close()
	away := newWorld(t)
	if _, err := Fetch(t.Context(), away.objects, strings.TrimPrefix(s.URL, "http://")+"/web:t", "amd64", false, quiet); err != nil || asked.Load() != 2 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// TestCredentials: they come from Docker's configuration; without them the fault says
// how to log in.
func TestCredentials(t *testing.T) {
	w, _, token := guarded(t)
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	manifest, _, _ := w.build("a file")
	_, err := Push(t.Context(), w.objects, manifest, w.host()+"/web:1", quiet)
	if err == nil || fault.Of(err).Kind != fault.Refused || !strings.Contains(fault.Of(err).Fix, "login") {
		t.Errorf("without credentials: %v", err)
	}
	auth := encode(t, map[string]any{"auths": map[string]any{w.host(): map[string]any{"username": "writer", "password": token}}})
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(auth), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Push(t.Context(), w.objects, manifest, w.host()+"/web:1", quiet); err != nil {
		t.Error(err)
	}
	// A helper is asked for those of the host.
	helper := "#!/bin/sh\nread -r host\n[ \"$1 $host\" = \"get " + w.host() + "\" ] && echo '{\"Username\":\"writer\",\"Secret\":\"SECRET\"}'\n"
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	auth = encode(t, map[string]any{"credHelpers": map[string]string{w.host(): "ashlar-test"}})
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(auth), 0o600); err != nil {
		t.Fatal(err)
	}
	for secret, accepted := range map[string]bool{token: true, "wrong": false} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-ashlar-test"), []byte(strings.Replace(helper, "SECRET", secret, 1)), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Push(t.Context(), w.objects, manifest, w.host()+"/web:1", quiet); (err == nil) != accepted {
			t.Errorf("the helper says %q: %v", secret, err)
		}
	}
}

func TestReferences(t *testing.T) {
	for _, s := range []string{"web", "web:7", "team/web:7", "", "host.example", "host.example/", "host.example/Web:7", "host.example/web:a/b", "host.example/web@sha256:abc", "../x:1", "host.example/../x:1"} {
		if ref, err := ParseReference(s); err == nil {
			t.Errorf("%q is %s", s, ref)
		}
	}
	for _, s := range []string{"localhost/web:7", "host.example/web", "127.0.0.1:5000/a/b:7", "host.example/web@" + digest.FromString("x").String()} {
		if _, err := ParseReference(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}
