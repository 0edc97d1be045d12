package router

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestUnreachableBackendCostsNoRequest(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "b", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	g.table(1, 0, 0, rollout.Backend{ID: "a", Address: freeAddr(t), Weight: 9}, b)
	for range 30 {
		if r := <-g.ask("POST", "/", strings.NewReader("body")); r.status != 200 || r.body != "body" {
			t.Fatalf("got %+v", r)
		}
	}
	if s := g.describe().Services[0]; s.Retried == 0 || s.Retried > 29 {
		t.Errorf("%d retried, want some, not all: a backend that was not reached is avoided for a while", s.Retried)
	}
}

// breaks closes the connection instead of answering.
func breaks(t *testing.T, id string, asked *atomic.Int64) rollout.Backend {
	b, _ := instance(t, id, func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	})
	b.Weight = 1000 // it is always the first choice
	return b
}

func TestBrokenRequestIsRepeatedOnlyWhereSafe(t *testing.T) {
	for _, c := range []struct {
		method, body string
		status       int
	}{
		{"GET", "", 200}, {"HEAD", "", 200}, {"OPTIONS", "", 200},
		{"POST", "", 502}, {"POST", "x", 502}, {"GET", "x", 502}, {"DELETE", "", 502},
	} {
		g := newRig(t)
		var asked atomic.Int64
		g.table(1, 0, 0, breaks(t, "a", &asked), named(t, "b"))
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		if r := <-g.ask(c.method, "/", body); r.status != c.status || asked.Load() != 1 {
			t.Errorf("%s with body %q: %+v after %d attempts at the broken one, want %d after 1", c.method, c.body, r, asked.Load(), c.status)
		}
	}
}

func TestBrokenRequestIsRepeatedOnce(t *testing.T) {
	g := newRig(t)
	var asked atomic.Int64
	g.table(1, time.Second, 0, breaks(t, "a", &asked), breaks(t, "b", &asked), breaks(t, "c", &asked))
	if status, _ := g.get("/"); status != 502 || asked.Load() != 2 {
		t.Errorf("%d after %d attempts, want 502 after 2", status, asked.Load())
	}
}

// An instance that is killed while it has requests costs none that can be repeated.
func TestCrashUnderLoadCostsNoGet(t *testing.T) {
	g := newRig(t)
	a, aServer := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	g.table(1, time.Second, time.Second, a, named(t, "b"))
	run, err := load.Start(t.Context(), load.Config{URL: g.url("/"), KeepAlive: 4, NewConn: 2, HTTP2: 1, Rate: 3000})
	if err != nil {
		t.Fatal(err)
	}
	more := func() {
		seen := run.Report().Requests
		g.await("requests", func() bool { return run.Report().Requests > seen+200 })
	}
	more()
	aServer.Listener.Close()
	aServer.CloseClientConnections()
	more()
	if report := run.Stop(); report.Failed != 0 {
		t.Errorf("%d of %d failed: %v", report.Failed, report.Requests, report.FirstErrors)
	}
}
