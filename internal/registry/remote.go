package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// jobs is how many blobs are sent or fetched at the same time.
const jobs = 4

// Moved is a sign of progress: of one blob or manifest so many bytes are done.
type Moved struct {
	What  string // its digest
	Bytes int64
	Total int64
	Had   bool // it was on the other side already
}

// ParseReference reads a reference to another registry: HOST[:PORT]/NAME[:TAG][@DIGEST].
// The host has to be written, since no registry is ours by itself.
func ParseReference(s string) (name.Reference, error) {
	host, _, ok := strings.Cut(s, "/")
	bad := func(why string) error {
		return fault.New(fault.Invalid, "%q does not name an image in a registry: %s", s, why).
			Mend("write  HOST/NAME:TAG  or  HOST/NAME@sha256:DIGEST , as in  registry.example.com/team/web:7")
	}
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") || host[0] == '.' {
		return nil, bad("it does not begin with a host")
	}
	ref, err := name.ParseReference(s, name.WithDefaultTag(""))
	if err != nil {
		return nil, bad(err.Error())
	}
	if !validName(ref.Context().RepositoryStr()) {
		return nil, bad("its name is not one for a repository")
	}
	return ref, nil
}

// options are those of every request: the credentials of Docker's configuration and
// its helpers, repeated where that is safe.
func options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithJobs(jobs),
		remote.WithTransport(encrypted{remote.DefaultTransport}), remote.WithUserAgent("ashlar"),
	}
}

// encrypted lets nothing out in the clear, except to this machine: credentials go with
// requests.
type encrypted struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (e encrypted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopbackHost(r.URL) {
		return nil, fault.New(fault.Refused, "%s would be asked without TLS", r.URL.Host).
			Mend("give the registry a certificate; a CA of your own is trusted by  SSL_CERT_FILE=ca.crt")
	}
	return e.RoundTripper.RoundTrip(r)
}

func loopbackHost(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// failed explains what went wrong with another registry.
func failed(doing string, ref fmt.Stringer, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	var t *transport.Error
	if !errors.As(err, &t) {
		return fault.New(fault.Unavailable, "cannot %s %s: %w", doing, ref, err)
	}
	switch t.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.New(fault.Refused, "cannot %s %s: %w", doing, ref, err).
			Mend("log in with what writes Docker's configuration, as  podman login --compat-auth-file ~/.docker/config.json HOST  or  docker login HOST")
	case http.StatusNotFound:
		return fault.New(fault.NotFound, "cannot %s %s: %w", doing, ref, err)
	}
	return fault.New(fault.Unavailable, "cannot %s %s: %w", doing, ref, err)
}
