package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// export exports the component that runs /usr/bin/run.
func export(t *testing.T, to string) (*project, digest.Digest, string) {
	t.Helper()
	p := newProject(t, two())
	r := p.mustRelease()
	name := r.Environments["production"].Components["web"].Spec.Artifact
	path := filepath.Join(t.TempDir(), to)
	if err := build.ExportLayout(t.Context(), p.b.Objects, name, "two/web:v1", path); err != nil {
		t.Fatal(err)
	}
	return p, name, path
}

func TestExportedLayoutIsWhatItSays(t *testing.T) {
	p, name, dir := export(t, "layout")
	blobs := 0
	err := filepath.WalkDir(filepath.Join(dir, "blobs", "sha256"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		blobs++
		b, err := os.ReadFile(path)
		if err == nil && digest.FromBytes(b).Encoded() != d.Name() {
			err = errors.New(path + " is not what its name says")
		}
		return err
	})
	if err != nil || blobs != 4 {
		t.Errorf("%d blobs, want 4: %v", blobs, err)
	}
	var index ocispec.Index
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &index); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != name {
		t.Errorf("the index is wrong: %s %v", b, err)
	}
	err = build.ExportLayout(t.Context(), p.b.Objects, name, "", dir)
	wantFault(t, err, fault.Conflict, "exists already")
	err = build.ExportLayout(t.Context(), p.b.Objects, digest.FromString("nothing"), "", dir+"2")
	if fault.Of(err).Kind != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestExportRefusesOtherBytes(t *testing.T) {
	p, name, dir := export(t, "layout")
	file, err := p.b.Objects.File(digest.FromString(two()["www/index.html"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("<p>version vX</p>\n"), 0o444)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{dir + "2", dir + "3.tar"} {
		err := build.ExportLayout(t.Context(), p.b.Objects, name, "", to)
		if fault.Of(err).Kind != fault.Refused {
			t.Errorf("%s: got %v, want a refusal", to, err)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("%s is there, although it was refused", to)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".export-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The tree in the manifest decides what is written: a manifest that names the
// layer of another tree must not be exported.
func TestExportComparesLayersWithTheManifest(t *testing.T) {
	p, name, dir := export(t, "layout")
	raw, err := p.b.Objects.ReadAll(name, image.ManifestLimit)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseManifest(raw)
	if err != nil {
		t.Fatal(err)
	}
	m.Layers[1].Tree = m.Layers[0].Tree
	forged, err := image.Assemble(image.Config{Architecture: "amd64", OS: "linux"}, m.Layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{forged.Manifest, forged.Config} {
		if _, err := p.b.Objects.PutBytes(b); err != nil {
			t.Fatal(err)
		}
	}
	wantFault(t, build.ExportLayout(t.Context(), p.b.Objects, forged.Digest(), "", dir+"2"), fault.Refused, "the manifest names")
}

func TestOtherToolsAcceptTheImage(t *testing.T) {
	for _, tool := range []string{"skopeo", "podman"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s:  apt-get install skopeo podman", tool)
		}
	}
	_, name, dir := export(t, "layout")
	_, _, archive := export(t, "image.tar")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for _, ref := range []string{"oci:" + dir + ":two/web:v1", "oci-archive:" + archive} {
		if out := run("skopeo", "inspect", ref); !strings.Contains(out, name.String()) {
			t.Errorf("skopeo inspect %s does not name %s:\n%s", ref, name, out)
		}
	}
	// A copy makes skopeo read every blob and compare it with its digest.
	run("skopeo", "--insecure-policy", "copy", "oci:"+dir+":two/web:v1", "dir:"+filepath.Join(t.TempDir(), "copy"))

	store, err := os.MkdirTemp("/tmp", "pod") // podman wants short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	podman := []string{"podman", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run"), "--storage-driver", "vfs"}
	run(append(podman, "load", "-i", archive)...)
	id := strings.TrimSpace(run(append(podman, "images", "-q", "--no-trunc")...))
	if id == "" {
		t.Fatal("podman load brought no image")
	}
	if err := os.CopyFS(filepath.Join(store, "layout"), os.DirFS(dir)); err != nil { // and without capitals
		t.Fatal(err)
	}
	run(append(podman, "pull", "oci:"+filepath.Join(store, "layout"))...)
	saved := filepath.Join(t.TempDir(), "saved.tar")
	run(append(podman, "save", "--format", "oci-archive", "-o", saved, id)...)
	if got := filesIn(t, saved); !strings.Contains(got, "srv/www/index.html 644 0:0") || !strings.Contains(got, "usr/bin/run 755 0:0") {
		t.Errorf("podman has other files:\n%s", got)
	}
}

// filesIn lists the files of all layers of an oci-archive.
func filesIn(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	outer := tar.NewReader(f)
	for {
		h, err := outer.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(h.Name, "blobs/sha256/") {
			continue
		}
		listTar(t, outer, &out)
	}
}

// listTar lists a layer; a blob that is none gives nothing.
func listTar(t *testing.T, r io.Reader, out *strings.Builder) {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var from io.Reader = bytes.NewReader(b)
	if z, err := gzip.NewReader(from); err == nil {
		from = z
	} else {
		from = bytes.NewReader(b)
	}
	inner := tar.NewReader(from)
	for {
		h, err := inner.Next()
		if err != nil {
			return
		}
		fmt.Fprintf(out, "%s %o %d:%d\n", h.Name, h.Mode, h.Uid, h.Gid)
	}
}
