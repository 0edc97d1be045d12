package image_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

func sample(t testing.TB) (image.Artifact, []image.Layer) {
	t.Helper()
	layers := []image.Layer{
		{Digest: digest.FromString("a"), Size: 1024, Tree: digest.FromString("tree a"), Comment: "debian nginx-light"},
		{Digest: digest.FromString("b"), Size: 2048, Tree: digest.FromString("tree b")},
	}
	a, err := image.Assemble(image.Config{
		Architecture: "amd64", OS: "linux", User: "65532:65532", Cmd: []string{"/usr/bin/hello"},
		WorkDir: "/", Port: 8080, StopSignal: "SIGTERM",
	}, layers, map[string]string{"dev.ashlar.component": "hello"})
	if err != nil {
		t.Fatal(err)
	}
	return a, layers
}

func TestAssembledManifestReadsBack(t *testing.T) {
	a, layers := sample(t)
	m, err := image.ParseManifest(a.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	layers[0].Comment = "" // kept in the configuration's history only
	if d := cmp.Diff(layers, m.Layers); d != "" {
		t.Error(d)
	}
	img, err := m.ParseConfig(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	if img.History[0].Comment != "debian nginx-light" || img.Config.User != "65532:65532" {
		t.Errorf("configuration lost something: %+v", img)
	}
	if _, ok := img.Config.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("the port is not exposed: %v", img.Config.ExposedPorts)
	}
	again, _ := sample(t)
	if again.Digest() != a.Digest() {
		t.Error("the same arguments gave two artifacts")
	}
}

func TestManifestRefusesWhatAssembleWouldNotWrite(t *testing.T) {
	a, _ := sample(t)
	edit := func(old, new string) []byte {
		out := bytes.Replace(a.Manifest, []byte(old), []byte(new), 1)
		if bytes.Equal(out, a.Manifest) {
			t.Fatalf("the manifest does not contain %s", old)
		}
		return out
	}
	for name, b := range map[string][]byte{
		"unknown key":     edit(`"schemaVersion":2`, `"schemaVersion":2,"extra":1`),
		"white space":     edit(`"schemaVersion":2`, `"schemaVersion": 2`),
		"other schema":    edit(`"schemaVersion":2`, `"schemaVersion":1`),
		"compressed":      edit(`layer.v1.tar"`, `layer.v1.tar+gzip"`),
		"other algorithm": edit(`"digest":"sha256:`, `"digest":"sha512:`),
		"negative size":   edit(`"size":1024`, `"size":-1`),
		"no tree":         edit(image.TreeAnnotation, "dev.ashlar.wood"),
		"trailing data":   append(bytes.Clone(a.Manifest), '{', '}'),
		"empty":           nil,
		"not JSON":        []byte("PK\x03\x04"),
		"too large":       []byte(strings.Repeat(" ", image.ManifestLimit+1)),
	} {
		_, err := image.ParseManifest(b)
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Refused {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestConfigMustBeTheManifests(t *testing.T) {
	a, layers := sample(t)
	m, err := image.ParseManifest(a.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ParseConfig(bytes.Replace(a.Config, []byte("65532"), []byte("00000"), 1)); err == nil {
		t.Error("a changed configuration was accepted")
	}
	swapped, err := image.Assemble(image.Config{Architecture: "amd64", OS: "linux"}, []image.Layer{layers[1], layers[0]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m2, err := image.ParseManifest(swapped.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	m2.Layers[0], m2.Layers[1] = m2.Layers[1], m2.Layers[0]
	if _, err := m2.ParseConfig(swapped.Config); err == nil {
		t.Error("DiffIDs in another order than the layers were accepted")
	}
}

func FuzzParseManifest(f *testing.F) {
	a, _ := sample(f)
	f.Add(a.Manifest)
	f.Add([]byte(`{"schemaVersion":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := image.ParseManifest(b)
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			if l.Digest.Validate() != nil || l.Tree.Validate() != nil || l.Size < 0 {
				t.Errorf("accepted an impossible layer %+v", l)
			}
		}
	})
}
