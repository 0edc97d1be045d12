package router

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// authority signs certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.key.Public())
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	a.n++
	c.SerialNumber = big.NewInt(a.n)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// pair writes a certificate and its key into a directory, and gives its serial number.
func (a *authority) pair(dir string, names ...string) (rollout.TLS, int64) {
	a.t.Helper()
	key := newKey(a.t)
	cert := a.sign(&x509.Certificate{DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key.Public())
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	files := rollout.TLS{Certificate: filepath.Join(dir, names[0]+".pem"), Key: filepath.Join(dir, names[0]+".key")}
	for path, b := range map[string]*pem.Block{files.Certificate: {Type: "CERTIFICATE", Bytes: cert.Raw}, files.Key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(b), 0o600); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			a.t.Fatal(err)
		}
	}
	return files, cert.SerialNumber.Int64()
}

// client trusts the authority and asks the rig's address, whatever the URL's host.
func (a *authority) client(g *rig, http2 bool) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{
		Protocols: p, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, g.addr)
		},
	}}
}

// secure puts a service behind TLS in force.
func (g *rig) secure(env rollout.Key, generation int64, t *rollout.TLS, host string, b rollout.Backend) error {
	table := web(generation, g.addr, host, "/", b)
	table.TLS = t
	return g.Apply(context.Background(), env, table)
}

func TestTLS(t *testing.T) {
	g, a := newRig(t), newAuthority(t)
	files, serial := a.pair(g.dir, "shop.example")
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Header.Get("X-Forwarded-Proto"), r.Host)
	})
	if err := g.secure(shop, 1, &files, "", b); err != nil {
		t.Fatal(err)
	}
	for _, http2 := range []bool{false, true} {
		resp, err := a.client(g, http2).Get("https://shop.example/")
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if http2 {
			want = 2
		}
		if body := read(t, resp); body != "https shop.example" || resp.ProtoMajor != want || resp.TLS.PeerCertificates[0].SerialNumber.Int64() != serial {
			t.Errorf("%q by %s", body, resp.Proto)
		}
	}
	if c, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	if resp, err := http.Get(g.url("/")); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP got %v, %v", resp, err)
	}
	// The same address without TLS, and back, with no connection refused between.
	if err := g.secure(shop, 2, nil, "", b); err != nil {
		t.Fatal(err)
	}
	if _, body := g.get("/"); body != "http "+g.addr {
		t.Errorf("without TLS: %q", body)
	}
}

func TestCertificateByName(t *testing.T) {
	g, a := newRig(t), newAuthority(t)
	one, _ := a.pair(g.dir, "one.example")
	two, _ := a.pair(g.dir, "two.example")
	if err := g.secure(shop, 1, &one, "one.example", named(t, "1")); err != nil {
		t.Fatal(err)
	}
	if err := g.secure(rollout.Key{App: "other", Env: "production"}, 1, &two, "two.example", named(t, "2")); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"one.example": "1", "two.example": "2"} {
		resp, err := a.client(g, true).Get("https://" + host)
		if err != nil {
			t.Fatal(err)
		}
		if body := read(t, resp); body != want {
			t.Errorf("%s is answered by %q", host, body)
		}
	}
	if _, err := a.client(g, true).Get("https://three.example"); err == nil {
		t.Error("a certificate for three.example")
	}
	wantFault(t, g.secure(rollout.Key{App: "plain", Env: "production"}, 1, nil, "three.example", named(t, "3")), fault.Conflict, g.addr, "/production")
}

func TestBadPairRefusesTheTable(t *testing.T) {
	g, a := newRig(t), newAuthority(t)
	g.apply(shop, web(1, g.addr, "", "/", named(t, "a")))
	good, _ := a.pair(g.dir, "shop.example")
	other, _ := a.pair(g.dir, "other.example")
	garbage := filepath.Join(g.dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files rollout.TLS
		word  string
	}{
		"another's key":  {rollout.TLS{Certificate: good.Certificate, Key: other.Key}, "does not match"},
		"no such file":   {rollout.TLS{Certificate: good.Certificate + "x", Key: good.Key}, "no such file"},
		"garbage":        {rollout.TLS{Certificate: garbage, Key: good.Key}, garbage},
		"no key":         {rollout.TLS{Certificate: good.Certificate}, "go together"},
		"relative path":  {rollout.TLS{Certificate: "shop.pem", Key: "shop.key"}, "absolute"},
		"nothing":        {rollout.TLS{}, "by ACME"},
		"both":           {rollout.TLS{Certificate: good.Certificate, Key: good.Key, ACME: "https://acme.example", Domains: []string{"a"}}, "one of them"},
		"no domains":     {rollout.TLS{ACME: "https://acme.example/directory"}, "domains"},
		"a wildcard":     {rollout.TLS{ACME: "https://acme.example/directory", Domains: []string{"*.example"}}, "not a domain"},
		"a bare name":    {rollout.TLS{ACME: "https://acme.example/directory", Domains: []string{"shop"}}, "not a domain"},
		"acme by http":   {rollout.TLS{ACME: "http://acme.example/directory", Domains: []string{"a.example"}}, "not an https URL"},
		"domains, files": {rollout.TLS{Certificate: good.Certificate, Key: good.Key, Domains: []string{"a"}}, "domains"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, g.secure(shop, 2, &c.files, "", named(t, "b")), fault.Invalid, c.word)
		})
	}
	if _, body := g.get("/"); body != "a" || g.describe().Generation != 1 {
		t.Errorf("%q answers after refusals", body)
	}
}

func TestCertificateIsReadAgainWhenItChanges(t *testing.T) {
	g, a := newRig(t), newAuthority(t)
	files, first := a.pair(g.dir, "shop.example")
	if err := g.secure(shop, 1, &files, "", named(t, "a")); err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		resp, err := a.client(g, false).Get("https://shop.example")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != first {
		t.Fatalf("serial %d, want %d", got, first)
	}
	if err := os.WriteFile(files.Key, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	looked := time.Now()
	g.await("the router to have looked", func() bool { return time.Since(looked) > 1100*time.Millisecond })
	if got := serial(); got != first {
		t.Errorf("serial %d while the key is damaged, want still %d", got, first)
	}
	_, second := a.pair(g.dir, "shop.example")
	g.await("the new certificate", func() bool { return serial() == second })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	// A router that starts while the files are damaged serves as soon as they are not.
	if err := os.Remove(files.Certificate); err != nil {
		t.Fatal(err)
	}
	g.start(Config{RunDir: g.dir})
	if _, err := a.client(g, false).Get("https://shop.example"); err == nil {
		t.Error("a certificate out of nothing")
	}
	_, third := a.pair(g.dir, "shop.example")
	g.await("the certificate to be there", func() bool {
		resp, err := a.client(g, false).Get("https://shop.example")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64() == third
	})
}
