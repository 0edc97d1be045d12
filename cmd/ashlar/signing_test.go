package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/registry"
)

const signedYAML = `app: shop
platforms: [linux/amd64, linux/arm64]
components:
  web:
    build:
      - files: {from: "content/**", to: /srv/, mode: "0755"}
    run: {command: [/srv/page-0]}
environments:
  production: {}
`

// signer is a shop with files to build from and keys to sign with.
type signer struct {
	*shop
	t testing.TB
}

func newSigner(t testing.TB, definition string, files int) *signer {
	t.Helper()
	s := &signer{newShop(t), t}
	keys := t.TempDir()
	t.Setenv("ASHLAR_KEYS", keys)
	for _, role := range []string{"release", "builder"} {
		s.run("key", "new", filepath.Join(keys, role), "--no-passphrase")
	}
	if err := os.Mkdir(filepath.Join(s.source, "content"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("ashlar.yaml", definition)
	for i := range files {
		s.write(fmt.Sprintf("content/page-%d", i), fmt.Sprint(i))
	}
	return s
}

func (s *signer) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.source, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command of the whole program.
func (s *signer) run(args ...string) (out string, took time.Duration) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	began := time.Now()
	where := []string{"--dir", s.dir}
	if args[0] == "build" {
		where = append(where, "--file", filepath.Join(s.source, "ashlar.yaml"))
	}
	if run(s.t.Context(), append(args, where...), strings.NewReader(""), &stdout, &stderr) != 0 {
		s.t.Fatalf("ashlar %s:\n%s", strings.Join(args, " "), stderr.String())
	}
	return stdout.String(), time.Since(began)
}

// What is built for several platforms is signed: each artifact, with its provenance and
// bills of materials, and the index that names them. A push of the artifact of this
// machine is one of the index, with all of it.
func TestSignedIndex(t *testing.T) {
	s := newSigner(t, signedYAML, 1)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	out, _ := s.run("build", "--sign", "--output", "json")
	var built struct{ Components []cli.BuiltComponent }
	if err := json.Unmarshal([]byte(out), &built); err != nil {
		t.Fatal(err)
	}
	c := built.Components[0]
	want := map[digest.Digest]int{c.Index: 1}
	for _, p := range c.Platforms {
		want[p.Artifact] = 4
	}
	if len(want) != 3 {
		t.Errorf("%+v", c)
	}
	for about, n := range want {
		if all, err := referrer.Of(s.objects, about); err != nil || len(all) != n {
			t.Errorf("%d statements about %s, want %d (%v)", len(all), about, n, err)
		}
	}
	objects, err := object.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	r := httptest.NewServer(registry.New(registry.Config{Objects: objects, Now: time.Now, Log: slog.New(slog.DiscardHandler)}))
	defer r.Close()
	q := cli.PushRequest{Dir: s.dir, Artifact: c.Artifact, Whole: true, To: strings.TrimPrefix(r.URL, "http://") + "/web:1", Progress: func(cli.Moved) {}}
	if got, err := pushArtifact(t.Context(), q); err != nil || got.Manifest != c.Index || got.Images != 2 || got.Statements != 9 {
		t.Errorf("the whole is pushed: %+v, %v", got, err)
	}
	q.Whole = false
	if got, err := pushArtifact(t.Context(), q); err != nil || got.Manifest != c.Artifact || got.Images != 1 || got.Statements != 4 {
		t.Errorf("one is pushed: %+v, %v", got, err)
	}
}

// BenchmarkSigning is what signing and attesting add: ashlar build --sign of an artifact of
// 1,000 files that is there already, less the same without --sign. Its signature,
// provenance and both bills of materials are made of the ledger, signed by two keys,
// recorded by a server and kept beside it; `make bench` prints it.
func BenchmarkSigning(b *testing.B) {
	s := newSigner(b, strings.Replace(signedYAML, "platforms: [linux/amd64, linux/arm64]\n", "", 1), 1000)
	var plain, signed time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		s.write("content/page-0", fmt.Sprintf("change %d", i))
		s.run("build")
		_, took := s.run("build")
		plain += took
		b.StartTimer()
		_, took = s.run("build", "--sign")
		signed += took
	}
	b.ReportMetric(float64(signed-plain)/float64(time.Millisecond)/float64(b.N), "ms/signing")
}
