package router

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var errNoCertificate = errors.New("there is no certificate for this address yet")

// pair is a certificate and its key, from files that may change.
type pair struct {
	certificate, key string
	looked           string // at the files' marks when they were last read; guarded by router.mu
	loaded           atomic.Pointer[tls.Certificate]
}

// load reads the pair. Whatever was loaded stays if that fails.
func (p *pair) load() error {
	p.looked = p.marks()
	cert, err := tls.LoadX509KeyPair(p.certificate, p.key)
	if err != nil {
		return fault.New(fault.Invalid, "the certificate and key cannot be used: %w", err).At(p.certificate).
			Mend("see that both are PEM files, belong together and can be read:  openssl x509 -noout -subject -in %s; openssl pkey -noout -in %s", p.certificate, p.key)
	}
	p.loaded.Store(&cert)
	return nil
}

// marks tells the files' identities: they differ when one was replaced or written.
func (p *pair) marks() string {
	out := ""
	for _, path := range []string{p.certificate, p.key} {
		info, err := os.Stat(path)
		if err != nil {
			out += "?"
			continue
		}
		ino := uint64(0)
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			ino = st.Ino
		}
		out += fmt.Sprintf("%d %d %d;", ino, info.Size(), info.ModTime().UnixNano())
	}
	return out
}

// identity is what one address shows to clients that speak TLS.
type identity struct {
	of     []rollout.TLS // what it was made from
	pairs  []*pair
	acme   []*issuer
	config *tls.Config
}

func (id *identity) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for _, a := range id.acme {
		if a.takes(hello.ServerName) {
			return a.manager.GetCertificate(hello)
		}
	}
	var first *tls.Certificate
	for _, p := range id.pairs {
		cert := p.loaded.Load()
		if cert == nil {
			continue
		}
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
		if first == nil {
			first = cert
		}
	}
	if first == nil {
		return nil, errNoCertificate
	}
	return first, nil // the client may not care for names, and says so itself if it does
}

// checkTLS reads the files of a table before it is taken.
func checkTLS(t *rollout.TLS) error {
	if t == nil || t.Certificate == "" {
		return nil
	}
	return (&pair{certificate: t.Certificate, key: t.Key}).load()
}

// onlyOne finds environments that share an address of which one wants TLS and the other not.
func onlyOne(env rollout.Key, table rollout.Table, others map[rollout.Key]*environment) error {
	for key, other := range others {
		if key != env && table.Listen != "" && other.table.Listen == table.Listen && (other.table.TLS == nil) != (table.TLS == nil) {
			return fault.New(fault.Conflict, "%s is an address with TLS for one environment and without for another", table.Listen).
				At(env.String()).Detail("the other is " + key.String()).Mend("give both tls: or neither, or one of them another listen:")
		}
	}
	return nil
}

// identify makes what each address shows as the tables say now. Identities that
// stay the same are kept, with their sessions.
func (r *router) identify() {
	wanted := map[string][]rollout.TLS{}
	for _, env := range r.envs {
		if t := env.table.TLS; t != nil {
			wanted[env.table.Listen] = append(wanted[env.table.Listen], *t)
		}
	}
	next := map[string]*identity{}
	for addr, of := range wanted {
		slices.SortFunc(of, func(a, b rollout.TLS) int {
			return slices.Compare([]string{a.Certificate, a.Key, a.ACME}, []string{b.Certificate, b.Key, b.ACME})
		})
		if id := r.identities[addr]; id != nil && reflect.DeepEqual(id.of, of) {
			next[addr] = id
			continue
		}
		next[addr] = r.newIdentity(of)
	}
	r.identities = next
	for addr, l := range r.listeners {
		l.show(r.identities[addr])
	}
}

func (r *router) newIdentity(of []rollout.TLS) *identity {
	id := &identity{of: of}
	id.config = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: id.choose}
	for _, t := range of {
		if t.ACME != "" {
			id.acme = append(id.acme, r.issuer(t))
			continue
		}
		p := &pair{certificate: t.Certificate, key: t.Key}
		if err := p.load(); err != nil { // it was good when the table came; the router is starting
			r.log.Error("certificate not usable, trying again when its files change", "err", err)
		}
		id.pairs = append(id.pairs, p)
	}
	if len(id.acme) > 0 {
		id.config.NextProtos = append(id.config.NextProtos, acme.ALPNProto)
	}
	return id
}

// reread reads certificates again whose files have changed.
func (r *router) reread(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, id := range r.identities {
		for _, p := range id.pairs {
			if p.marks() == p.looked {
				continue
			}
			if err := p.load(); err != nil {
				r.log.Error("changed certificate not usable, the one before stays", "listen", addr, "err", err)
				continue
			}
			leaf := p.loaded.Load().Leaf
			r.log.Info("certificate read again", "listen", addr, "certificate", p.certificate, "until", leaf.NotAfter)
			if now.After(leaf.NotAfter) {
				r.log.Error("certificate is out of date", "listen", addr, "certificate", p.certificate, "until", leaf.NotAfter)
			}
		}
	}
}

// tls checks the source of an address's certificate, without reading files.
func (c *checker) tls(in rollout.Table) *rollout.TLS {
	if in.TLS == nil {
		return nil
	}
	t := *in.TLS
	t.Domains = nil
	c.need(in.Listen != "", "tls needs a listen address")
	c.need((t.ACME == "") != (t.Certificate == ""), "tls: a certificate comes from a file or by ACME, from one of them")
	c.need((t.Certificate == "") == (t.Key == ""), "tls: a certificate and its key go together")
	for _, path := range []string{t.Certificate, t.Key} {
		c.need(path == "" || filepath.IsAbs(path), "tls: %q is not an absolute path", path)
	}
	c.need(t.ACME == "" || validDirectory(t.ACME), "tls: acme %q is not an https URL", t.ACME)
	c.need((t.ACME == "") == (len(in.TLS.Domains) == 0), "tls: acme needs domains, and nothing else does")
	for _, d := range in.TLS.Domains {
		name := hostOnly(d)
		c.need(strings.Contains(name, ".") && validHost(name) && net.ParseIP(name) == nil, "tls: %q is not a domain", d)
		t.Domains = append(t.Domains, name)
	}
	slices.Sort(t.Domains)
	return &t
}
