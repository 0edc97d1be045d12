package rebuild

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

var inputs = Inputs{Schema: Schema, App: "shop", Definition: "ashlar.yaml", Artifacts: map[string]digest.Digest{"web": digest.FromString("web")}}

func TestThereAndBack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("ashlar.yaml", "app: shop", 0o644)
	write("cmd/web/main.go", "package main", 0o644)
	write("run", "#!/bin/sh", 0o755)
	write(".git/config", "secret", 0o644)
	if err := os.Symlink("../run", filepath.Join(from, "cmd/link")); err != nil {
		t.Fatal(err)
	}
	files, err := Tree(from, Source, "")
	if err != nil {
		t.Fatal(err)
	}
	var one, two bytes.Buffer
	if err := Write(&one, inputs, files); err != nil {
		t.Fatal(err)
	}
	if err := Write(&two, inputs, append(files, files...)); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("the same files gave another tar, %v", err)
	}
	in, err := Unpack(&one, to)
	if err != nil || in.Artifacts["web"] != inputs.Artifacts["web"] {
		t.Fatalf("%+v, %v", in, err)
	}
	for name, want := range map[string]string{"source/ashlar.yaml": "app: shop", "source/cmd/web/main.go": "package main", "source/cmd/link": "#!/bin/sh"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(to, "source/run")); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("run: %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "source/.git")); err == nil {
		t.Error("Git's files came along")
	}
}

// pack makes a tar by hand.
func pack(t testing.TB, in Inputs, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range append([]tar.Header{{Name: inputsName, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}}, entries...) {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		content := bytes.Repeat([]byte("x"), int(h.Size))
		if h.Name == inputsName {
			content = text
		}
		if _, err := tw.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackRefuses(t *testing.T) {
	file := func(name string) tar.Header {
		return tar.Header{Name: name, Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	bad := inputs
	bad.Definition = "../ashlar.yaml"
	for name, text := range map[string][]byte{
		"empty":                   {},
		"garbage":                 bytes.Repeat([]byte("x"), 2000),
		"a path upwards":          pack(t, inputs, file("source/../../x")),
		"an absolute path":        pack(t, inputs, file("/source/x")),
		"another part":            pack(t, inputs, file("secrets/x")),
		"no part":                 pack(t, inputs, file("x")),
		"a link outwards":         pack(t, inputs, link("source/x", "../../etc/passwd")),
		"an absolute link":        pack(t, inputs, link("source/x", "/etc/passwd")),
		"a link among objects":    pack(t, inputs, link("objects/x", "y")),
		"a file through a link":   pack(t, inputs, link("source/x", "y"), link("source/y", "../source"), file("source/x/z/../../../w")),
		"a hard link":             pack(t, inputs, tar.Header{Name: "source/x", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}),
		"a device":                pack(t, inputs, tar.Header{Name: "source/x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}),
		"a file twice":            pack(t, inputs, file("source/x"), file("source/x")),
		"a definition outside":    pack(t, bad),
		"inputs of another kind":  pack(t, Inputs{Schema: "x", App: "shop", Definition: "ashlar.yaml", Artifacts: inputs.Artifacts}),
		"inputs without artifact": pack(t, Inputs{Schema: Schema, App: "shop", Definition: "ashlar.yaml"}),
	} {
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(bytes.NewReader(text), dir); err == nil || fault.Of(err).Kind != fault.Refused {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
			t.Errorf("%s: something is outside: %v", name, left)
		}
		t.Attr("refused", "entry <- "+name)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, inputs, tar.Header{Name: "source/x", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}, tar.Header{Name: "source/l", Linkname: "x", Typeflag: tar.TypeSymlink}))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		Unpack(bytes.NewReader(text), dir) //nolint:errcheck // that nothing is outside counts
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
			t.Errorf("something is outside: %v", left)
		}
	})
}
