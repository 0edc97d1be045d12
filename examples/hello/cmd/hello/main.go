// Command hello is the smallest service worth deploying: it greets, says that it
// is healthy, and ends only after the requests it has accepted are answered.
//
// It listens on :$PORT (default 8080). The text it serves is one line of source,
// so that a change of one line is a change one can see.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const version = "v1"

func main() {
	if err := run(); err != nil {
		slog.Error("hello stopped", "err", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", ":"+valueOr("PORT", "8080"))
	if err != nil {
		return err
	}
	slog.Info("hello serves", "version", version, "release", release(), "address", listener.Addr().String())

	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		slog.Info("hello is asked to stop: finishing what was accepted")
		grace, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		done <- server.Shutdown(grace)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s hello %s, release %s\n", valueOr("GREETING", "Hello."), version, release())
	})
	return mux
}

// release is what the platform says that this instance belongs to.
func release() string { return valueOr("ASHLAR_RELEASE", "unknown") }

func valueOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}
