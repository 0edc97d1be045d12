package cosign_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const pairYAML = `app: pair
platforms: [linux/amd64, linux/arm64]
components:
  web:
    build: [{files: {from: run, to: /srv/run, mode: "0755"}}]
    run: {command: [/srv/run]}
environments: {production: {}}
`

// What `ashlar build --sign` made for two architectures goes to `ashlar registry` as an
// index. cosign accepts its signature, and of each image the signature, the provenance and
// both bills of materials, straight from there; and no longer with one character changed.
// It is the short form that `make test` runs.
func TestIndex(t *testing.T) {
	w := makeWorld(t, true)
	store := w.serveRegistry()
	if err := os.Mkdir(filepath.Join(w.dir, "pair"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("pair/run", "#!/bin/sh\n")
	w.write("pair/ashlar.yaml", pairYAML)
	var built struct {
		Components []struct {
			Index     string
			Platforms []struct{ Artifact string }
		}
	}
	if err := json.Unmarshal([]byte(w.ashlar("build", "--sign", "--output", "json", "--file", "pair/ashlar.yaml")), &built); err != nil {
		t.Fatal(err)
	}
	pair := built.Components[0]
	w.ashlar("push", pair.Index, store+"/pair/web:1")
	index, err := name.NewDigest(store + "/pair/web@" + pair.Index)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(key, image string) []string {
		return []string{"verify", "--key", key + ".pub", "--trusted-root", "trusted_root.json", image}
	}
	w.accepted("the index by its tag", verify("release", store+"/pair/web:1")...)
	w.accepted("the index", verify("release", index.String())...)
	w.refused("the index by another key", notInLog, verify("root", index.String())...)
	if len(pair.Platforms) != 2 {
		t.Fatalf("%+v", pair)
	}
	for _, p := range pair.Platforms {
		image := store + "/pair/web@" + p.Artifact
		w.accepted("an image of it", verify("release", image)...)
		for _, kind := range kinds {
			if kind == summaryType {
				continue // nothing was deployed, and so nothing judged
			}
			w.accepted(kind, "verify-attestation", "--key", "builder.pub", "--trusted-root", "trusted_root.json", "--type", kind, image)
		}
	}
	one, err := name.NewDigest(store + "/pair/web@" + pair.Platforms[0].Artifact)
	if err != nil {
		t.Fatal(err)
	}
	w.refusesChanged("pair", one, 4)

	idx, err := remote.Index(index)
	if err != nil {
		t.Fatal(err)
	}
	said, err := remote.Referrers(index)
	if err != nil {
		t.Fatal(err)
	}
	list, err := said.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatal(err, list)
	}
	bundle := w.bundle(index, list.Manifests[0])
	for _, path := range [][]string{{"dsseEnvelope", "payload"}, {"dsseEnvelope", "signatures", "sig"}} {
		to, err := name.NewDigest(w.registry + "/" + path[len(path)-1] + "@" + pair.Index)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(to, idx); err != nil {
			t.Fatal(err)
		}
		w.attachRaw(to, idx, changed(t, bundle, path), predicateType(t, bundle))
		w.refused("the index with another "+path[len(path)-1], "", verify("release", to.String())...)
	}
}
