package router

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// acmeServer speaks as much of RFC 8555 as getting one certificate takes. It does
// not check signatures, but it does check the challenge: by a TLS connection to
// the address that it is to certify.
type acmeServer struct {
	*authority
	*httptest.Server
	addr string // of the router

	mu     sync.Mutex
	thumb  string
	domain string
	state  string // of the order
	issued []byte
	count  int // requests
	orders int // of certificates
}

func newACMEServer(t *testing.T, addr string) *acmeServer {
	s := &acmeServer{authority: newAuthority(t), addr: addr}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *acmeServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	w.Header().Set("Replay-Nonce", fmt.Sprint("nonce", s.count))
	var payload struct {
		Identifiers []struct{ Value string }
		CSR         string
	}
	if r.Method == "POST" {
		if err := s.open(r.Body, &payload); err != nil {
			s.t.Errorf("%s: %v", r.URL, err)
		}
	}
	order := func() map[string]any {
		return map[string]any{
			"status": s.state, "identifiers": []map[string]string{{"type": "dns", "value": s.domain}},
			"authorizations": []string{s.URL + "/authz"}, "finalize": s.URL + "/finalize", "certificate": s.URL + "/cert",
		}
	}
	challenge := map[string]string{"type": "tls-alpn-01", "url": s.URL + "/challenge", "token": "tok", "status": "pending"}
	say := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	switch r.URL.Path {
	case "/directory":
		say(200, map[string]string{"newNonce": s.URL + "/nonce", "newAccount": s.URL + "/account", "newOrder": s.URL + "/new-order"})
	case "/nonce":
	case "/account":
		w.Header().Set("Location", s.URL+"/account/1")
		say(201, map[string]string{"status": "valid"})
	case "/new-order":
		s.orders++
		s.domain, s.state = payload.Identifiers[0].Value, "pending"
		w.Header().Set("Location", s.URL+"/order")
		say(201, order())
	case "/order":
		say(200, order())
	case "/authz":
		state := map[bool]string{true: "pending", false: "valid"}[s.state == "pending"]
		say(200, map[string]any{"status": state, "identifier": map[string]string{"type": "dns", "value": s.domain}, "challenges": []any{challenge}})
	case "/challenge":
		if err := s.validate(); err != nil {
			s.t.Error(err)
		}
		s.state = "ready"
		say(200, challenge)
	case "/finalize":
		der, _ := base64.RawURLEncoding.DecodeString(payload.CSR)
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.issued = s.sign(&x509.Certificate{DNSNames: csr.DNSNames}, csr.PublicKey).Raw
		s.state = "valid"
		w.Header().Set("Location", s.URL+"/order")
		say(200, order())
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.issued})
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
	default:
		http.NotFound(w, r)
	}
}

// open reads a JWS: its payload, and from its header the account's key.
func (s *acmeServer) open(body io.Reader, payload any) error {
	var jws struct{ Protected, Payload string }
	if err := json.NewDecoder(body).Decode(&jws); err != nil {
		return err
	}
	var head struct {
		JWK *struct{ X, Y string }
	}
	protected, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err := json.Unmarshal(protected, &head); err != nil {
		return err
	}
	if head.JWK != nil {
		x, _ := base64.RawURLEncoding.DecodeString(head.JWK.X)
		y, _ := base64.RawURLEncoding.DecodeString(head.JWK.Y)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return err
		}
		thumb, err := acme.JWKThumbprint(key)
		if err != nil {
			return err
		}
		s.thumb = thumb
	}
	data, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	if len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, payload)
}

// validate is RFC 8737, 3: the certificate for the name with the protocol acme-tls/1
// carries the digest of the key authorization.
func (s *acmeServer) validate() error {
	c, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: s.domain, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	state := c.ConnectionState()
	sum := sha256.Sum256([]byte("tok." + s.thumb))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	for _, ext := range state.PeerCertificates[0].Extensions {
		if ext.Id.String() == "1.3.6.1.5.5.7.1.31" && bytes.Equal(ext.Value, want) && state.NegotiatedProtocol == "acme-tls/1" {
			return nil
		}
	}
	return fmt.Errorf("the challenge is not answered: protocol %q", state.NegotiatedProtocol)
}

func TestACME(t *testing.T) {
	g := newRig(t)
	s := newACMEServer(t, g.addr)
	source := &rollout.TLS{ACME: s.URL + "/directory", Domains: []string{"Shop.example"}}
	if err := g.secure(shop, 1, source, "", named(t, "a")); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		resp, err := s.client(g, true).Get("https://shop.example/")
		if err != nil {
			t.Fatal(err)
		}
		return read(t, resp)
	}
	if body := ask(); body != "a" {
		t.Errorf("%q answers", body)
	}
	if _, err := s.client(g, true).Get("https://other.example/"); err == nil {
		t.Error("a certificate for a domain that nobody asked for")
	}
	// It is kept: the next router orders none. (The one before may still be tidying up there.)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	before := s.orders
	s.mu.Unlock()
	g.start(Config{RunDir: g.dir, Grace: time.Second})
	if body := ask(); body != "a" {
		t.Errorf("%q answers after the restart", body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders != before {
		t.Errorf("%d certificates were ordered after the restart", s.orders-before)
	}
}
