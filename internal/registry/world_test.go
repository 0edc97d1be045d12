package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// world is a registry over an object store, and what Ashlar is said to have built.
type world struct {
	*testing.T
	dir     string
	objects *object.Store
	built   artifacts
	server  *Server
	url     string
	log     *lockedBuffer

	clock *clock
}

// clock is one that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type artifacts map[string]map[string]digest.Digest

func (a artifacts) Artifacts(context.Context) (map[string]map[string]digest.Digest, error) {
	return a, nil
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	objects, err := object.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dir: dir, objects: objects, built: artifacts{}, log: &lockedBuffer{}, clock: &clock{now: time.Now()}}
	c := Config{Objects: objects, Catalog: w.built, Now: w.clock.time, Log: slog.New(slog.NewTextHandler(w.log, nil))}
	for _, f := range change {
		f(&c)
	}
	w.server = New(c)
	s := httptest.NewServer(w.server)
	w.url = s.URL
	t.Cleanup(func() {
		s.Close()
		if err := w.server.Close(); err != nil {
			t.Error(err)
		}
		if err := objects.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // the body broke off
}

// code is the error code in the body.
func (a answer) code() string {
	var doc struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Errors) != 1 {
		return ""
	}
	return doc.Errors[0].Code
}

// do sends a request; header are "Name: value".
func (w *world) do(method, path, body string, header ...string) answer {
	w.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.url + path
	}
	r, err := http.NewRequest(method, path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(raw), err}
}

// want is do that fails the test on another status.
func (w *world) want(status int, method, path, body string, header ...string) answer {
	w.Helper()
	a := w.do(method, path, body, header...)
	if a.status != status {
		w.Fatalf("%s %s: status %d, want %d\n%s\n%s", method, path, a.status, status, a.body, w.log)
	}
	return a
}

// push pushes a blob and gives its descriptor.
func (w *world) push(repository, content string) ocispec.Descriptor {
	w.Helper()
	d := digest.FromString(content)
	w.want(http.StatusCreated, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), content)
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
}

// manifest makes a manifest whose layer is that content, pushing what it needs.
func (w *world) manifest(repository, content string, change ...func(*ocispec.Manifest)) string {
	w.Helper()
	config := w.push(repository, "{}")
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := w.push(repository, content)
	layer.MediaType = ocispec.MediaTypeImageLayer
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	}
	for _, f := range change {
		f(&m)
	}
	return encode(w, m)
}

func encode(t interface{ Fatal(...any) }, v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// put pushes a manifest.
func (w *world) put(repository, ref, manifest string) digest.Digest {
	w.Helper()
	doc, err := parseDocument([]byte(manifest), "")
	if err != nil {
		w.Fatal(err)
	}
	w.want(http.StatusCreated, "PUT", "/v2/"+repository+"/manifests/"+ref, manifest, "Content-Type: "+doc.MediaType)
	return digest.FromString(manifest)
}

// build stores an artifact as a build does: its layers' trees and no layer.
func (w *world) build(files ...string) (manifest digest.Digest, layer image.Layer, tar string) {
	w.Helper()
	t := image.Tree{Entries: []image.Entry{{Path: ".", Type: image.Dir, Mode: 0o755}}}
	for _, f := range files {
		d, err := w.objects.PutBytes([]byte(f))
		if err != nil {
			w.Fatal(err)
		}
		t.Entries = append(t.Entries, image.Entry{Path: digest.FromString(f).Encoded(), Type: image.File, Mode: 0o644, Size: int64(len(f)), Digest: d})
	}
	t = image.Sorted(t.Entries)
	var b bytes.Buffer
	if err := image.WriteTar(&b, t, w.objects); err != nil {
		w.Fatal(err)
	}
	tree, err := w.objects.PutBytes(t.Marshal())
	if err != nil {
		w.Fatal(err)
	}
	layer = image.Layer{Digest: digest.FromBytes(b.Bytes()), Size: int64(b.Len()), Tree: tree}
	art, err := image.Assemble(image.Config{Architecture: "amd64", OS: "linux"}, []image.Layer{layer}, nil)
	if err != nil {
		w.Fatal(err)
	}
	for _, raw := range [][]byte{art.Config, art.Manifest} {
		if _, err := w.objects.PutBytes(raw); err != nil {
			w.Fatal(err)
		}
	}
	return art.Digest(), layer, b.String()
}

// stored counts the objects and the references.
func (w *world) stored() (objects, refs int) {
	w.Helper()
	if err := w.objects.Walk(func(digest.Digest, int64) error { objects++; return nil }); err != nil {
		w.Fatal(err)
	}
	names, err := repositories(w.objects)
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range names {
		r := openRepository(w.objects, name)
		for _, kind := range []string{kindTags, kindManifests, kindBlobs, kindSubjects} {
			all, err := r.objects.Refs(kind + r.id)
			if err != nil {
				w.Fatal(err)
			}
			refs += len(all)
		}
	}
	return objects, refs + len(names)
}
