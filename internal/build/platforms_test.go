package build_test

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// TestPlatforms builds for another machine too: the index names one artifact for each,
// other people's tool finds both, and an image source on the index takes its own.
func TestPlatforms(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if other == "" {
		t.Fatal("the test knows amd64 and arm64")
	}
	files := two()
	files["ashlar.yaml"] = strings.Replace(files["ashlar.yaml"], "app: two\n", "app: two\nplatforms: [linux/amd64, linux/arm64]\n", 1)
	p := newProject(t, files)
	rel := p.mustRelease()
	def, err := p.define()
	if err != nil {
		t.Fatal(err)
	}
	indexes, err := build.Indexes(t.Context(), p.b, def, rel)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "api")
	if err := build.ExportLayout(t.Context(), p.b.Objects, indexes["api"].Digest, "v1", dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", indexes["api"].Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) != 2 {
		t.Fatalf("%s: %v", raw, err)
	}
	byArch := map[string]digest.Digest{}
	for _, m := range index.Manifests {
		byArch[m.Platform.Architecture] = m.Digest
	}
	if own := rel.Environments["production"].Components["api"].Spec.Artifact; byArch[runtime.GOARCH] != own || byArch[other] == own {
		t.Errorf("the index names %v, this machine's is %s", byArch, own)
	}

	for _, m := range indexes["api"].Platforms {
		if m.Manifest != byArch[m.Arch] {
			t.Errorf("the artifact for %s is %s, the index names %s", m.Arch, m.Manifest, byArch[m.Arch])
		}
		if book, err := ledger.Read(p.b.Objects, m.Ledger); err != nil || book.Ledger.Artifact != m.Manifest {
			t.Errorf("the ledger for %s: %v", m.Arch, err)
		}
		if of, err := build.IndexOf(p.b.Objects, m.Manifest); err != nil || of != indexes["api"].Digest {
			t.Errorf("the artifact for %s is in the index %q (%v)", m.Arch, of, err)
		}
	}
	// Of two that name an artifact that counts which was built last, though it was built before.
	own := indexes["api"].Platforms[0]
	later, err := image.AssembleIndex([]image.Platform{{Architecture: own.Arch, Manifest: own.Manifest, Size: 1}, {Architecture: "riscv64", Manifest: own.Ledger, Size: 1}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.b.Objects.PutBytes(later)
	if err == nil {
		err = p.b.Objects.SetRef("index", second.Encoded(), second)
	}
	past := time.Now().Add(-time.Hour)
	for _, ref := range []digest.Digest{indexes["api"].Digest, second} {
		err = errors.Join(err, os.Chtimes(filepath.Join(filepath.Dir(p.b.Objects.Path()), "refs/index", ref.Encoded()), past, past))
		past = past.Add(time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []digest.Digest{second, indexes["api"].Digest} {
		if of, err := build.IndexOf(p.b.Objects, own.Manifest); err != nil || of != want {
			t.Errorf("the newest index is %q, want %s (%v)", of, want, err)
		}
		if _, err := build.Indexes(t.Context(), p.b, def, rel); err != nil {
			t.Fatal(err)
		}
	}
	if of, err := build.IndexOf(p.b.Objects, indexes["api"].Digest); err != nil || of != "" {
		t.Errorf("an index is in the index %q (%v)", of, err)
	}

	// The very same on the other machine.
	q := newProject(t, files)
	q.b.Arch = other
	def2, err := q.define()
	if err != nil {
		t.Fatal(err)
	}
	again, err := build.Indexes(t.Context(), q.b, def2, q.mustRelease())
	if err != nil || again["api"].Digest != indexes["api"].Digest || again["web"].Digest != indexes["web"].Digest {
		t.Errorf("built on %s the indexes are %v, not %v (%v)", other, again, indexes, err)
	}
	locks := [2][]byte{}
	for i, d := range []string{p.dir, q.dir} {
		if locks[i], err = os.ReadFile(filepath.Join(d, build.LockName)); err != nil {
			t.Fatal(err)
		}
	}
	if string(locks[0]) != string(locks[1]) {
		t.Error("the lock file depends on the machine")
	}

	for arch, want := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		on := newProject(t, map[string]string{"ashlar.yaml": "app: on\ncomponents: {api: {build: [{image: {path: " + dir + "}}], run: {command: [/usr/bin/api]}}}\nenvironments: {production: {}}\n"})
		on.b.Arch = arch
		tree := root(t, on, spec(on.mustRelease()).Tree)
		e, _ := tree.Lookup("usr/bin/api")
		file, err := on.b.Objects.File(e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != want {
			t.Errorf("the program for %s is for %s", arch, f.Machine)
		}
		f.Close()
		if _, err := exec.LookPath("skopeo"); err == nil {
			out, err := exec.Command("skopeo", "--override-arch", arch, "--override-os", "linux", "inspect", "--raw", "--config", "oci:"+dir).Output()
			if err != nil || !strings.Contains(string(out), `"architecture":"`+arch+`"`) {
				t.Errorf("skopeo inspect for %s: %v\n%s", arch, err, out)
			}
		}
	}
}
