package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// grace is how long requests under way may go on after the server was asked to end.
const grace = 10 * time.Second

// Listen opens an address. One that others than this machine reach needs both TLS and
// users.
func Listen(address string, protected bool) (_ net.Listener, loopback bool, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, false, fault.New(fault.Invalid, "%q is not an address", address).Mend("write  --listen 127.0.0.1:5000")
	}
	ip := net.ParseIP(host)
	loopback = host == "localhost" || ip != nil && ip.IsLoopback()
	if !loopback && !protected {
		return nil, false, fault.New(fault.Refused, "a registry at %s, which other machines reach, needs users and TLS", address).
			Mend("give  --users FILE --tls-certificate FILE --tls-key FILE  or listen on the loopback:  --listen 127.0.0.1:5000")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, false, fault.New(fault.Unavailable, "the registry cannot listen: %w", err).Mend("choose another address with --listen")
	}
	return l, loopback, nil
}

// Serve answers requests until ctx ends, and then lets those under way end. With a
// certificate it speaks TLS.
func Serve(ctx context.Context, l net.Listener, s *Server, certificate *Certificate, log *slog.Logger) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if certificate != nil {
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get}
	}
	ended := make(chan error, 1)
	go func() {
		if certificate != nil {
			ended <- srv.ServeTLS(l, "", "")
			return
		}
		ended <- srv.Serve(l)
	}()
	select {
	case err := <-ended:
		return errors.Join(fault.New(fault.Unavailable, "the registry does not serve any more: %w", err), s.Close())
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	return errors.Join(err, s.Close())
}

// Certificate is a pair of files that is read again when one of them changes.
type Certificate struct {
	cert, key string
	mu        sync.Mutex
	seen      [2]time.Time
	pair      *tls.Certificate
}

// OpenCertificate reads a certificate with its chain and its key, both PEM.
func OpenCertificate(cert, key string) (*Certificate, error) {
	c := &Certificate{cert: cert, key: key}
	if _, err := c.get(nil); err != nil {
		return nil, fault.New(fault.Invalid, "the certificate cannot be used: %w", err).At(cert)
	}
	return c, nil
}

// get is tls.Config.GetCertificate. While the files are bad it goes on with the pair
// that it has.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now [2]time.Time
	for i, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil {
			now[i] = info.ModTime()
		}
	}
	if c.pair != nil && now == c.seen {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil && c.pair == nil {
		return nil, err
	}
	c.seen = now
	if err == nil {
		c.pair = &pair
	}
	return c.pair, nil
}
