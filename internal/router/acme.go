package router

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// issueTime is how long an authority may take for a certificate.
const issueTime = 5 * time.Minute

// issuer gets certificates of one ACME directory (RFC 8555) and renews them. The
// challenge is tls-alpn-01 (RFC 8737), which needs nothing but the address itself:
// the authority must reach it at port 443 of the domain. There is one for each
// directory as long as the router lives, since autocert's renewals have no end.
type issuer struct {
	manager *autocert.Manager
	domains atomic.Pointer[[]string]
}

func (a *issuer) takes(domain string) bool {
	return slices.Contains(*a.domains.Load(), hostOnly(domain))
}

// validDirectory wants https, but on this machine itself.
func validDirectory(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback()
}

// issuer gives the one of a table's directory, with the table's domains beside
// those it has. Terms of service are agreed to: who writes the URL into the
// definition has chosen the authority.
func (r *router) issuer(t rollout.TLS) *issuer {
	a := r.issuers[t.ACME]
	if a == nil {
		a = &issuer{}
		a.domains.Store(&[]string{})
		a.manager = &autocert.Manager{
			Prompt: autocert.AcceptTOS,
			Cache:  autocert.DirCache(filepath.Join(r.acmeDir, fmt.Sprintf("%x", sha256.Sum256([]byte(t.ACME)))[:16])),
			HostPolicy: func(_ context.Context, host string) error {
				if !a.takes(host) {
					return fault.New(fault.Invalid, "%q is not among the domains of any route", host)
				}
				return nil
			},
			Client: &acme.Client{DirectoryURL: t.ACME, UserAgent: "ashlar/" + r.version},
		}
		r.issuers[t.ACME] = a
	}
	domains := *a.domains.Load()
	for _, d := range t.Domains {
		if slices.Contains(domains, d) {
			continue
		}
		domains = append(slices.Clone(domains), d)
		go r.obtain(a, d)
	}
	a.domains.Store(&domains)
	return a
}

// obtain asks for a certificate ahead of the first client, once the address is open.
func (r *router) obtain(a *issuer, domain string) {
	ctx, cancel := context.WithTimeout(context.Background(), issueTime)
	defer cancel()
	for {
		_, err := a.manager.GetCertificate(&tls.ClientHelloInfo{
			ServerName: domain, SupportedCurves: []tls.CurveID{tls.CurveP256}, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		})
		if err == nil {
			r.log.Info("certificate is on hand", "domain", domain, "acme", a.manager.Client.DirectoryURL)
			return
		}
		r.log.Error("no certificate yet, clients that come ask again", "domain", domain, "acme", a.manager.Client.DirectoryURL, "err", err)
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return
		case <-r.closing:
			return
		}
	}
}
