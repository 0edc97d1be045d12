package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/notary"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/store"
	"github.com/ashlar-infra/ashlar/internal/witness"
)

// openNotary compares the database with what was last signed, and is where a
// server ends whose database is not that.
func openNotary(ctx context.Context, q cli.ServeRequest, host string, s *store.Store, log *slog.Logger) (*notary.Notary, error) {
	c := notary.Config{Dir: q.Dir, Host: host, Record: s, Now: time.Now, Log: log, Every: q.Notary.AnchorEvery}
	client := &http.Client{Timeout: 10 * time.Second}
	for _, text := range q.Notary.Witnesses {
		w, err := witness.NewClient(text, client)
		if err != nil {
			return nil, err
		}
		c.Witnesses = append(c.Witnesses, w)
	}
	if q.Notary.Anchor != "" {
		a, err := notary.NewAnchor(q.Notary.Anchor)
		if err != nil {
			return nil, err
		}
		c.Anchor = a
	}
	return notary.Open(ctx, c)
}

// listenLog opens the address where the record is served; nil if there is none. It
// is of the loopback: what it serves is not encrypted, and tells who did what.
func listenLog(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fault.New(fault.Invalid, "%q is not an address of the loopback", address).
			Mend("write  --log-listen 127.0.0.1:8441  and put a server with TLS in front of it for others")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the record cannot be served: %w", err).Mend("choose another port with --log-listen")
	}
	return l, nil
}

// serveLog serves the record until ctx ends.
func serveLog(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("the record is served", "address", l.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fault.New(fault.Unavailable, "the record is not served any more: %w", err)
	case <-ctx.Done():
		return srv.Close()
	}
}

// renewLog ends a log and begins another, with an entry that says so.
func renewLog(ctx context.Context, dir, reason string) (_ map[string]string, err error) {
	if _, err := notary.PublicKey(dir); err != nil {
		return nil, fault.New(fault.NotFound, "there is no log to renew: %w", err).Mend("a server makes one when it starts:  ashlar server")
	}
	unlock, err := store.Lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := store.Open(ctx, filepath.Join(dir, "ashlar.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	data, err := notary.Renew(ctx, notary.Config{Dir: dir, Host: host, Record: s})
	if err != nil {
		return nil, err
	}
	e := record.Entry{Time: time.Now().UTC(), Actor: whoami() + "@" + host, Kind: "record.renewed", Reason: reason, Data: data}
	return data, s.Append(ctx, []record.Entry{e})
}

func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
