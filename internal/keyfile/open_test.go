package keyfile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// playProgram says that this test binary is a signing program, and of which kind.
const playProgram = "KEYFILE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if kind := os.Getenv(playProgram); kind != "" {
		program(kind, os.Getenv(playProgram+"_KEY"))
		return
	}
	os.Exit(m.Run())
}

// program is what somebody would write for a key service: here it has a key file.
func program(kind, key string) {
	var q programRequest
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		os.Exit(1)
	}
	signer, err := Signer(key, nil)
	if err != nil {
		os.Exit(1)
	}
	public, _ := trust.NewPublicKey(signer.Public()) //nolint:errcheck // a P-256 key
	var a programAnswer
	switch {
	case q.Operation == "public-key":
		a.PublicKey = public.PEM()
	case kind == "broken":
		fmt.Fprintln(os.Stderr, "the service is away")
		os.Exit(3)
	case kind == "flood":
		io.Copy(os.Stdout, strings.NewReader(strings.Repeat("x", 10<<20))) //nolint:errcheck // nobody reads all of it
		return
	case kind == "false":
		q.Digest[0] ^= 1
		fallthrough
	default:
		a.Signature, _ = signer.Sign(rand.Reader, q.Digest, crypto.SHA256) //nolint:errcheck // as above
	}
	json.NewEncoder(os.Stdout).Encode(a) //nolint:errcheck // as above
}

func signs(t *testing.T, s crypto.Signer) error {
	t.Helper()
	sum := sha256.Sum256([]byte("something"))
	sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(s.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Error("the signature is not one")
	}
	return err
}

// A key without a passphrase asks for none, and opens for its owner alone.
func TestWithoutPassphrase(t *testing.T) {
	name := filepath.Join(t.TempDir(), "release")
	if _, err := New(name, nil); err != nil {
		t.Fatal(err)
	}
	ask := func() ([]byte, error) { t.Error("asked for a passphrase"); return nil, nil }
	s, err := Signer(name+".key", ask)
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(t, s); err != nil {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644} {
		if err := os.Chmod(name+".key", mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Signer(name+".key", ask); err == nil || fault.Of(err).Kind != fault.Refused {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestOfRole(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := OfRole(filepath.Join(dir, "nowhere"), trust.RoleRelease); ok || err != nil {
		t.Errorf("no directory: %t, %v", ok, err)
	}
	if _, err := New(filepath.Join(dir, "release"), nil); err != nil {
		t.Fatal(err)
	}
	if key, ok, err := OfRole(dir, trust.RoleRelease); !ok || err != nil || key != filepath.Join(dir, "release.key") {
		t.Errorf("%q, %t, %v", key, ok, err)
	}
	if _, ok, err := OfRole(dir, trust.RoleBuilder); ok || err != nil {
		t.Errorf("another role: %t, %v", ok, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "release.uri"), []byte("exec:/bin/true"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OfRole(dir, trust.RoleRelease); err == nil || fault.Of(err).Kind != fault.Conflict {
		t.Errorf("two keys of a role: %v", err)
	}
}

// A program signs; one that fails, floods or signs something else is found out.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	made, err := New(filepath.Join(dir, "held"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(playProgram+"_KEY", filepath.Join(dir, "held.key"))
	t.Setenv(playProgram, "good")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "release")
	public, err := Use(name, "exec:"+self+" some argument")
	if err != nil || public.ID() != made.ID() {
		t.Fatalf("%s, %v", public.ID(), err)
	}
	if got, err := Public(name + ".uri"); err != nil || got.ID() != made.ID() {
		t.Errorf("its public half: %v", err)
	}
	s, err := Signer(name+".uri", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(t, s); err != nil {
		t.Error(err)
	}
	for kind, want := range map[string]string{"broken": "the service is away", "flood": "cannot be read", "false": "not a signature by the key"} {
		t.Setenv(playProgram, kind)
		if err := signs(t, s); err == nil || !strings.Contains(err.Error()+strings.Join(fault.Of(err).Details, " "), want) {
			t.Errorf("%s: %v, want %q", kind, err, want)
		}
	}
	for _, address := range []string{"exec:", "exec:relative", "exec:/nowhere", "https://example.com", "pkcs11:"} {
		if _, err := Use(filepath.Join(dir, "x"), address); err == nil {
			t.Errorf("%q was accepted", address)
		}
	}
}

func TestParsePKCS11(t *testing.T) {
	got, err := parsePKCS11("pkcs11:token=my%20token;object=release;id=%01%a0;type=private?module-path=/usr/lib/x.so&pin-source=file:/etc/pin")
	want := token{module: "/usr/lib/x.so", label: "my token", object: "release", id: "01a0", pinFile: "/etc/pin"}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"pkcs11:", "pkcs11:object=x", "pkcs11:object=x?module-path=rel.so", "pkcs11:token=x?module-path=/x.so",
		"pkcs11:object=%zz?module-path=/x.so", "pkcs11:object=x;color=red?module-path=/x.so", "pkcs11:object=x?module-path=/x.so&pin-value=1234"} {
		if _, err := parsePKCS11(bad); err == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A key that is made in a token, and never leaves it, signs.
func TestPKCS11(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	for _, program := range []string{PKCS11Tool, "softhsm2-util"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing:  apt-get install softhsm2 opensc", program)
		}
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", write("softhsm2.conf", "directories.tokendir = "+filepath.Join(dir, "tokens")+"\n"))
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run("softhsm2-util", "--init-token", "--free", "--label", "our keys", "--so-pin", "12345678", "--pin", "1234")
	run(PKCS11Tool, "--module", module, "--login", "--pin", "1234", "--token-label", "our keys", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "release", "--id", "01")
	name := filepath.Join(dir, "release")
	address := "pkcs11:token=our%20keys;object=release?module-path=" + module + "&pin-source=" + write("pin", "1234\n")
	public, err := Use(name, address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Signer(name+".uri", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := trust.NewPublicKey(s.Public()); err != nil || got.ID() != public.ID() {
		t.Errorf("%v, %v", got.ID(), err)
	}
	if err := signs(t, s); err != nil {
		t.Error(err)
	}
	write("pin", "4321\n")
	if err := signs(t, s); err == nil {
		t.Error("it signs with a wrong PIN")
	}
	if _, err := Signer(strings.Replace(address, "object=release", "object=other", 1), nil); err == nil {
		t.Error("a key that is not there was opened")
	}
}

func FuzzParsePKCS11(f *testing.F) {
	f.Add("pkcs11:token=my%20token;object=release;id=%01%a0?module-path=/usr/lib/x.so&pin-source=file:/etc/pin")
	f.Fuzz(func(t *testing.T, address string) {
		got, err := parsePKCS11(address)
		if err == nil && (!filepath.IsAbs(got.module) || got.object == "" && got.id == "") {
			t.Errorf("%q: %+v", address, got)
		}
	})
}
