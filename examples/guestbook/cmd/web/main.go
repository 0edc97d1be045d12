// Command web is a guestbook: people sign it, Redis keeps what they wrote.
//
//	web           serves on :$PORT
//	web migrate   brings the data to the schema that this program needs, and ends
//
// It finds Redis by the name that the platform gives it ($REDIS_ADDR), never by an
// instance, and its password in a file that is a secret. While Redis is replaced, requests wait.
package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// schema is the version of the data that this program reads and writes.
const schema = "1"

// longest is the most that somebody may write.
const longest = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("guestbook stopped", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	book, err := openBook()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "migrate":
		return book.migrate(ctx)
	case len(args) > 0:
		return fmt.Errorf("unknown argument %q: the only one is migrate", args[0])
	}
	greeting, err := os.ReadFile("/etc/guestbook/greeting")
	if err != nil {
		return err
	}
	return serve(ctx, &http.Server{
		Addr: ":" + os.Getenv("PORT"), Handler: site{book, strings.TrimSpace(string(greeting))}.handler(), ReadHeaderTimeout: 10 * time.Second,
	})
}

func serve(ctx context.Context, server *http.Server) error {
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		ended <- server.Shutdown(grace)
	}()
	slog.Info("guestbook serves", "release", os.Getenv("ASHLAR_RELEASE"))
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

// site is the pages.
type site struct {
	book     *book
	greeting string
}

func (s site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", s.show)
	mux.HandleFunc("POST /sign", s.sign)
	return mux
}

var page = template.Must(template.New("page").Parse(`<!doctype html><title>Guestbook</title>
<h1>{{.Greeting}}</h1>
<form method=post action=/sign><input name=text maxlength=1000 required><button>Sign</button></form>
<ol>{{range .Entries}}<li>{{.}}</li>
{{end}}</ol>
`))

func (s site) show(w http.ResponseWriter, r *http.Request) {
	entries, err := s.book.entries(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	if err := page.Execute(w, map[string]any{"Greeting": s.greeting, "Entries": entries}); err != nil {
		slog.Warn("answer broken off", "err", err)
	}
}

func (s site) sign(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	text := strings.TrimSpace(r.FormValue("text"))
	if text == "" || len(text) > longest {
		http.Error(w, fmt.Sprintf("write 1 to %d bytes as  text", longest), http.StatusBadRequest)
		return
	}
	if err := s.book.sign(r.Context(), text); err != nil {
		unavailable(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func unavailable(w http.ResponseWriter, err error) {
	slog.Error("redis does not answer", "err", err)
	http.Error(w, "the book cannot be reached, try again soon", http.StatusServiceUnavailable)
}
