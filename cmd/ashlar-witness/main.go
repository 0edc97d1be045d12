// Command ashlar-witness is a witness of logs: it remembers the last checkpoint of
// each that it saw and cosigns only what begins with it. Run it where whoever runs
// the log cannot reach: another machine, another owner.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/witness"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `A witness of Ashlar's records, and of any log that speaks c2sp.org/tlog-witness.

  ashlar-witness init  --dir DIR --name NAME    make its key, and print the public one
  ashlar-witness serve --dir DIR --log KEY...   cosign the logs of these public keys

A witness is worth something on another machine, of another owner. It never forgets:
do not restore DIR from a backup; make a new witness instead.
`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, args, stdout, stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	fmt.Fprintln(stderr, err) //nolint:errcheck // there is nobody else to tell
	return fault.Of(err).Kind.ExitCode()
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "init":
		return initialise(args, stdout, stderr)
	case "serve":
		return serve(ctx, args, stderr)
	case "", "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	return fault.New(fault.Invalid, "there is no command %q", name).Detail("known: init, serve").Mend("see  ashlar-witness help")
}

func flags(name string, stderr io.Writer) (*flag.FlagSet, *string) {
	f := flag.NewFlagSet("ashlar-witness "+name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {} // parse tells
	return f, f.String("dir", "/var/lib/ashlar-witness", "where it keeps its key and what it saw")
}

func parse(f *flag.FlagSet, args []string) error {
	stderr := f.Output()
	f.SetOutput(io.Discard) // where flag says by itself what parse says
	err := f.Parse(args)
	f.SetOutput(stderr)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.PrintDefaults()
	case err != nil:
		return fault.New(fault.Invalid, "%w", err).Mend("see  %s --help", f.Name())
	}
	return err
}

func initialise(args []string, stdout, stderr io.Writer) error {
	f, dir := flags("init", stderr)
	name := f.String("name", "", "name of the witness, such as witness.example/1")
	if err := parse(f, args); err != nil {
		return err
	}
	public, err := witness.Init(*dir, *name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, public)
	return err
}

// logKeys collects --log.
type logKeys []note.Verifier

func (l *logKeys) String() string { return fmt.Sprintf("%d logs", len(*l)) }

func (l *logKeys) Set(text string) error {
	v, err := note.NewVerifier(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("it is not the public key of a log, as  ashlar log key  prints it: %w", err)
	}
	*l = append(*l, v)
	return nil
}

func serve(ctx context.Context, args []string, stderr io.Writer) error {
	f, dir := flags("serve", stderr)
	var logs logKeys
	f.Var(&logs, "log", "public key of a log to cosign; ashlar log key prints it; may be given again")
	listen := f.String("listen", "127.0.0.1:8442", "address; without TLS only of the loopback")
	cert := f.String("tls-certificate", "", "file with the certificate and its chain, PEM")
	key := f.String("tls-key", "", "file with its key, PEM")
	if err := parse(f, args); err != nil {
		return err
	}
	if len(logs) == 0 {
		return fault.New(fault.Invalid, "the witness knows no log").Mend("name one:  --log KEY  as  ashlar log key  prints it")
	}
	w, err := witness.LoadKey(*dir)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	s, err := witness.New(*dir, w, logs, time.Now, log)
	if err != nil {
		return err
	}
	l, err := open(*listen, *cert, *key)
	if err != nil {
		return err
	}
	log.Info("witness serves", "address", l.Addr().String(), "logs", len(logs), "key", w.PublicKey())
	return answer(ctx, l, s.Handler())
}

func open(address, cert, key string) (net.Listener, error) {
	if (cert == "") != (key == "") {
		return nil, fault.New(fault.Invalid, "a certificate needs its key, and a key its certificate").
			Mend("give both:  --tls-certificate FILE --tls-key FILE")
	}
	if cert == "" {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return nil, fault.New(fault.Invalid, "%q is not an address of the loopback: without TLS the witness serves only there", address).
				Mend("give it a certificate:  --tls-certificate FILE --tls-key FILE")
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the witness cannot listen: %w", err)
	}
	if cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, errors.Join(fault.New(fault.Invalid, "the certificate cannot be used: %w", err).At(cert), l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}), nil
}

func answer(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}
