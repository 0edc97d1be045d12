package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// gnu writes one empty file with a long name, or a link to one, as GNU tar does.
func gnu(t testing.TB, h tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Format, h.Mode = tar.FormatGNU, 0o644
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sum writes the checksum of a header block anew.
func sum(block []byte) {
	copy(block[148:156], "        ")
	n := 0
	for _, c := range block[:tarBlock] {
		n += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", n))
}

// A NUL in a name would end it here, and perhaps not elsewhere.
func TestNameWithNUL(t *testing.T) {
	long := strings.Repeat("n", 150)
	plain := tarOf(t, file{name: "before", body: strings.Repeat("text", 300)}, file{name: "abc"})
	at := bytes.Index(plain, []byte("abc\x00"))
	link := tarOf(t, file{name: "l", typ: tar.TypeSymlink, link: "abc"})
	for name, b := range map[string][]byte{
		"a long name": bytes.Replace(gnu(t, tar.Header{Name: long, Typeflag: tar.TypeReg}), []byte("nnn"), []byte("n\x00n"), 1),
		"a long link": bytes.Replace(gnu(t, tar.Header{Name: "l", Linkname: long, Typeflag: tar.TypeSymlink}), []byte("nnn"), []byte("n\x00n"), 1),
		"a name":      func() []byte { b := slices.Clone(plain); copy(b[at:], "a\x00c"); sum(b[at:]); return b }(),
		"a link":      func() []byte { b := slices.Clone(link); copy(b[157:], "a\x00c"); sum(b); return b }(),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readLayer(bytes.NewReader(b), sink{})
			if f := fault.Of(err); f == nil || f.Kind != fault.Refused || !strings.Contains(f.What, "a name holds NUL") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Headers without end are not gathered without end.
func TestHeadersAreBounded(t *testing.T) {
	one := gnu(t, tar.Header{Name: strings.Repeat("n", 150), Typeflag: tar.TypeReg})[:2*tarBlock]
	_, err := readLayer(bytes.NewReader(bytes.Repeat(one, 2*maxHeaders/len(one))), sink{})
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || !strings.Contains(f.What, "bytes of headers") {
		t.Errorf("got %v", err)
	}
}

// What GNU tar writes is read whole: long names and links, in both of its formats.
func TestGNUTar(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("directory-of-a-long-name/", 8) + "file"
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax", "oldgnu"} {
		b, err := exec.Command("tar", "-C", dir, "--format="+format, "-c", ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		l, err := readLayer(bytes.NewReader(b), sink{})
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		found := 0
		for _, e := range l.entries {
			if e.Path == name && e.Digest == digest.FromString("text") || e.Path == "link" && e.Link == name {
				found++
			}
		}
		if found != 2 {
			t.Errorf("%s: of file and link %d are right: %v", format, found, l.entries)
		}
	}
}

// SHA-512 is refused with the way to an image that has SHA-256.
func TestSHA512(t *testing.T) {
	i := small1(t)
	d := i.manifest.Layers[0].Digest
	i.manifest.Layers[0].Digest = digest.SHA512.FromBytes(i.blobs[d])
	i.finish()
	store, _ := newStore(t)
	_, err := take(t, store, i.archive())
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || !strings.Contains(f.What, "layer 1 of manifest sha256:") || !strings.Contains(f.What, "which is not a SHA-256") ||
		!strings.Contains(f.Fix, "skopeo copy") {
		t.Errorf("got %v", err)
	}
}
