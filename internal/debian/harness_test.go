package debian

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// testNow is when the tests happen.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testKey makes a signing key and its public keyring.
func testKey(t testing.TB) (*openpgp.Entity, []byte) {
	t.Helper()
	config := &packet.Config{Time: func() time.Time { return testNow.AddDate(-1, 0, 0) }, Algorithm: packet.PubKeyAlgoEdDSA}
	e, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return e, b.Bytes()
}

// sign makes a clear-signed message.
func sign(t testing.TB, key *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, &packet.Config{Time: func() time.Time { return testNow.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

// member is one tar member of a test's .deb.
type member struct {
	name string
	typ  byte // default regular file
	mode int64
	body string
	link string
	uid  int
}

// deb is a package of a test's archive.
type deb struct {
	name, version string
	fields        string // further control lines, each ended by a newline
	scripts       map[string]string
	data          []member
	raw           []byte // the file itself, instead of one made of data
}

func (d deb) control() string {
	return "Package: " + d.name + "\nVersion: " + d.version + "\nArchitecture: amd64\nMaintainer: T <t@example.org>\n" + d.fields
}

func (d deb) path() string { return "pool/main/" + d.name + "_" + d.version + "_amd64.deb" }

func tarOf(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.typ, Mode: m.mode, Linkname: m.link, Uid: m.uid, ModTime: testNow.Add(time.Hour), Format: tar.FormatGNU}
		if m.typ == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(m.body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, m.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b) // to memory
	_ = w.Close()
	return out.Bytes()
}

type arFile struct {
	name string
	body []byte
}

func arOf(files ...arFile) []byte {
	var b bytes.Buffer
	b.WriteString(arMagic)
	for _, f := range files {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", f.name, 0, 0, 0, 0o100644, len(f.body))
		b.Write(f.body)
		if len(f.body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// bytes builds the package.
func (d deb) bytes(t testing.TB) []byte {
	t.Helper()
	if d.raw != nil {
		return d.raw
	}
	control := []member{{name: "./control", body: d.control()}}
	for _, n := range slices.Sorted(maps.Keys(d.scripts)) {
		control = append(control, member{name: "./" + n, mode: 0o755, body: d.scripts[n]})
	}
	return arOf(arFile{"debian-binary", []byte("2.0\n")}, arFile{"control.tar.gz", gz(tarOf(t, control))}, arFile{"data.tar.gz", gz(tarOf(t, d.data))})
}

// web is a network in memory: what it serves, and what was asked for.
type web struct {
	mu     sync.Mutex
	files  map[string][]byte
	asked  []string
	faults map[string]int // URL to how many times it fails before it answers
}

func (w *web) Get(_ context.Context, url string) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, url)
	if w.faults[url] > 0 {
		w.faults[url]--
		return nil, errors.New("connection reset by peer")
	}
	b, ok := w.files[url]
	if !ok {
		return nil, fmt.Errorf("%s: %w", url, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

const testURL = "http://archive.test/debian"

// testArchive is a signed archive in memory.
type testArchive struct {
	*web
	key     *openpgp.Entity
	keyring []byte
}

// release renders a Release file of suite "test" over one Packages file.
func releaseText(packages []byte, more string) string {
	return fmt.Sprintf("Origin: Test\nSuite: stable\nCodename: test\nVersion: 1.2\nDate: %s\n%sAcquire-By-Hash: yes\nArchitectures: all amd64\n"+
		"No-Support-for-Architecture-all: Packages\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages.gz\n",
		testNow.Add(-time.Hour).Format("Mon, 02 Jan 2006 15:04:05 UTC"), more, sha256.Sum256(packages), len(packages))
}

func newArchive(t testing.TB, debs ...deb) *testArchive {
	t.Helper()
	key, ring := testKey(t)
	a := &testArchive{web: &web{files: map[string][]byte{}, faults: map[string]int{}}, key: key, keyring: ring}
	var packages strings.Builder
	for _, d := range debs {
		b := d.bytes(t)
		a.files[testURL+"/"+d.path()] = b
		fmt.Fprintf(&packages, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", d.control(), d.path(), len(b), sha256.Sum256(b))
	}
	packed := gz([]byte(packages.String()))
	a.files[fmt.Sprintf("%s/dists/test/main/binary-amd64/by-hash/SHA256/%x", testURL, sha256.Sum256(packed))] = packed
	a.files[testURL+"/dists/test/InRelease"] = sign(t, key, releaseText(packed, ""))
	return a
}

func (a *testArchive) source(packages ...string) Source {
	return Source{
		Archives: []Archive{{URL: testURL, Suite: "test", Areas: []string{"main"}, Keyring: a.keyring}},
		Packages: packages, Arch: "amd64", Now: testNow,
	}
}

// fetched resolves and fetches into a store.
func (a *testArchive) fetched(t *testing.T, store *object.Store, src Source) Lock {
	t.Helper()
	lock, err := Resolve(t.Context(), store, src, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := Fetch(t.Context(), store, lock, a, nil); err != nil {
		t.Fatal(err)
	}
	return lock
}

// build resolves, fetches and lays out.
func (a *testArchive) build(t *testing.T, src Source) (Lock, image.Tree, error) {
	t.Helper()
	store := openStore(t)
	lock, err := Resolve(t.Context(), store, src, a)
	if err != nil {
		return lock, image.Tree{}, err
	}
	if err := Fetch(t.Context(), store, lock, a, nil); err != nil {
		return lock, image.Tree{}, err
	}
	made, err := Tree(t.Context(), store, lock, src)
	return lock, made.Tree, err
}

// wantFault checks that err is a fault of a kind whose text holds every piece.
func wantFault(t *testing.T, err error, kind fault.Kind, pieces ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	if got := fault.Of(err).Kind; got != kind {
		t.Errorf("kind %s, want %s: %v", got, kind, err)
	}
	for _, p := range pieces {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error does not say %q:\n%v", p, err)
		}
	}
}

// sink takes file bytes and keeps their names alone.
type sink struct{}

func (sink) Put(r io.Reader, limit int64) (digest.Digest, int64, error) {
	d := digest.SHA256.Digester()
	n, err := io.Copy(d.Hash(), io.LimitReader(r, limit+1))
	if n > limit {
		err = errors.New("too large")
	}
	return d.Digest(), n, err
}
