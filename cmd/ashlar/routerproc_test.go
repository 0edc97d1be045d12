package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/router"
)

var routed = rollout.Key{App: "shop", Env: "production"}

// host is what a server has of its router: the program under the name that makes
// the test binary be it, and a table in force.
type host struct {
	t           *testing.T
	dir, listen string
}

func newHost(t *testing.T) *host {
	dir, err := os.MkdirTemp("", "rp") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Link(must(os.Executable()), filepath.Join(dir, "ashlar")); err != nil {
		data := must(os.ReadFile(must(os.Executable())))
		if err := os.WriteFile(filepath.Join(dir, "ashlar"), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { endRouter(t, dir) })
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return &host{t, dir, l.Addr().String()}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// router is that of a server of one version.
func (h *host) router(version string) *routerProcess {
	h.t.Setenv("ASHLAR_TEST_VERSION", version)
	return &routerProcess{
		runDir: h.dir, logFile: filepath.Join(h.dir, "router.log"), client: router.Dial(h.dir), version: version,
		program: filepath.Join(h.dir, "ashlar"), log: slog.New(slog.NewTextHandler(h.t.Output(), nil)),
	}
}

// apply routes to a program that answers "ok", and holds a request at /hold until
// its client goes away.
func (h *host) apply(p *routerProcess) (held chan struct{}) {
	held = make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			held <- struct{}{}
			<-r.Context().Done()
		}
		io.WriteString(w, "ok")
	}))
	h.t.Cleanup(s.Close)
	err := p.client.Apply(h.t.Context(), routed, rollout.Table{Generation: 3, Listen: h.listen, Services: []rollout.Service{{
		Name: "web", Path: "/", Drain: time.Minute, Backends: []rollout.Backend{{ID: "a", Address: s.Listener.Addr().String(), Weight: 1}},
	}}})
	if err != nil {
		h.t.Fatal(err)
	}
	return held
}

func TestRouterOfAnotherVersionIsHandedOver(t *testing.T) {
	h := newHost(t)
	first := h.router("1")
	pid := must(first.ensure(t.Context()))
	held := h.apply(first)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		req := must(http.NewRequestWithContext(ctx, "GET", "http://"+h.listen+"/hold", nil))
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-held
	second := h.router("2")
	next := must(second.ensure(t.Context()))
	health := must(second.client.Health(t.Context()))
	if next == pid || health.Version != "2" || health.PID != next || len(health.Before) != 1 || health.Before[0] != pid {
		t.Errorf("process %d after %d, health %+v", next, pid, health)
	}
	if s := must(second.client.Status(t.Context(), routed)); s.Generation != 3 || s.InFlight["a"] != 1 {
		t.Errorf("status of the next router: %+v", s)
	}
	if again := must(second.ensure(t.Context())); again != next {
		t.Errorf("process %d, want still %d", again, next)
	}
	cancel()
	<-over
	if err := second.end(t.Context()); err != nil {
		t.Error(err)
	}
}

// A router that cannot take over, or one that cannot hand over, costs nothing.
func TestRouterGoesOnWhenItIsNotReplaced(t *testing.T) {
	h := newHost(t)
	first := h.router("1")
	pid := must(first.ensure(t.Context()))
	h.apply(first)
	broken := h.router("2")
	broken.program = "/bin/false"
	if next, err := broken.ensure(t.Context()); err != nil || next != pid {
		t.Errorf("process %d, %v, want still %d", next, err, pid)
	}
	resp, err := http.Get("http://" + h.listen)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// kill -9 of the router: it serves its last set again within a second.
func TestKilledRouterIsBackWithinASecond(t *testing.T) {
	h := newHost(t)
	p := h.router("1")
	pid := must(p.ensure(t.Context()))
	h.apply(p)
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	back := make(chan struct{}, 10)
	go func() { defer close(kept); p.keep(ctx, pid, func() { back <- struct{}{} }) }()
	defer func() { stop(); <-kept }()
	for range 3 {
		killed := time.Now()
		if err := syscall.Kill(must(p.client.Health(t.Context())).PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for {
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + h.listen)
			if err == nil {
				body := must(io.ReadAll(resp.Body))
				resp.Body.Close()
				if strings.Contains(string(body), "ok") {
					break
				}
			}
			if time.Since(killed) > 10*time.Second {
				t.Fatal("it does not come back")
			}
		}
		took := time.Since(killed)
		t.Logf("back after %s", took)
		if took > time.Second {
			t.Errorf("back after %s", took)
		}
		<-back
		if s := must(p.client.Status(t.Context(), routed)); s.Generation != 3 {
			t.Errorf("generation %d, want 3", s.Generation)
		}
	}
}
