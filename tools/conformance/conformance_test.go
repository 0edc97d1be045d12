// Package conformance_test has the conformance suite of the OCI distribution
// specification judge `ashlar registry`: whole, with nothing left out or skipped but what
// is in unsupported.
package conformance_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leastTests is how many tests the suite has at least: fewer would mean that it did
// not look at everything.
const leastTests = 800

// unsupported is what the suite leaves out, by version of the specification: manifests that
// name what was never pushed, which a registry may refuse and ours does; and of the next
// version what the released one does not have.
var unsupported = map[string][]string{
	"1.1": {"Blob upload cancel", "Manifest put with tag params", "Sparse Manifests", "Tag Param", "Tag Param sha512"},
	"dev": {"Sparse Manifests"},
}

// TestConformance runs the suite of the released specification on the loopback, and that
// of the next one over TLS with a user.
func TestConformance(t *testing.T) {
	dir := t.TempDir()
	suite := filepath.Join(dir, "conformance")
	if out, err := exec.Command("go", "build", "-o", suite, "github.com/opencontainers/distribution-spec/conformance").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("1.1", func(t *testing.T) {
		address := serve(t, filepath.Join(dir, "plain"))
		run(t, suite, "1.1", "OCI_REGISTRY="+address, "OCI_TLS=disabled")
	})
	t.Run("dev", func(t *testing.T) {
		cert, key := certificate(t, dir)
		users := filepath.Join(dir, "users")
		cmd := exec.Command(ashlar(t), "registry", "user", "suite", "--write", "--users", users)
		cmd.Stdin = strings.NewReader("a password\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		address := serve(t, filepath.Join(dir, "guarded"), "--users", users, "--tls-certificate", cert, "--tls-key", key)
		run(t, suite, "dev", "OCI_REGISTRY="+address, "OCI_USERNAME=suite", "OCI_PASSWORD=a password", "SSL_CERT_FILE="+cert)
	})
}

// run runs the suite and looks at what it counted.
func run(t *testing.T, suite, version string, env ...string) {
	t.Helper()
	results := t.TempDir()
	cmd := exec.Command(suite)
	cmd.Dir = results
	cmd.Env = append(append(os.Environ(), env...), "OCI_VERSION="+version, "OCI_RESULTS_DIR="+results)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the suite ends with %v", err)
	}
	_, summary, ok := strings.Cut(string(out), "OCI Conformance Result: Pass\n")
	for _, kind := range []string{"FAIL", "Error", "Skip"} {
		ok = ok && counted(t, summary, kind) == 0
	}
	var disabled []string
	for _, m := range regexp.MustCompile(`(?m)^  (.*?)\.+: +Disabled$`).FindAllStringSubmatch(summary, -1) {
		disabled = append(disabled, m[1])
	}
	if !slices.Equal(disabled, unsupported[version]) {
		t.Errorf("the suite leaves out %q, want %q", disabled, unsupported[version])
	}
	if passed := counted(t, summary, "Pass"); !ok || passed < leastTests {
		t.Errorf("the suite does not pass whole:\n%s", out)
	} else {
		t.Logf("%d passed", passed)
	}
}

func counted(t *testing.T, summary, kind string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ +` + kind + `\.*: +(\d+)$`).FindStringSubmatch(summary)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ashlar(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/ashlar")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// serve runs a registry until the test ends, and gives its address.
func serve(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(ashlar(t), append([]string{"--dir", dir, "registry", "--listen", "127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; run it with  make test", err)
	}
	said, address := bufio.NewScanner(stderr), ""
	for address == "" && said.Scan() {
		if m := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(said.Text()); m != nil {
			address = m[1]
		}
	}
	if address == "" {
		t.Fatalf("the registry does not serve: %v", cmd.Wait())
	}
	rest := make(chan string, 1)
	go func() {
		var b strings.Builder
		for said.Scan() {
			fmt.Fprintln(&b, said.Text())
		}
		rest <- b.String()
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		text := <-rest
		if err := cmd.Wait(); err != nil || text != "" {
			t.Errorf("the registry ends with %v and says\n%s", err, text)
		}
	})
	return address
}

// certificate makes a certificate for the loopback that signs itself.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		var b bytes.Buffer
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
