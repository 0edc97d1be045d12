package router

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestHeldRequestGoesOnWhenABackendComes(t *testing.T) {
	g := newRig(t)
	g.table(1, time.Minute, 0)
	waiting := []<-chan reply{g.ask("GET", "/", nil), g.ask("POST", "/", strings.NewReader("body"))}
	g.await("the requests to be held", func() bool { h, _ := g.Health(t.Context()); return h.Held == 2 })
	g.table(2, time.Minute, 0) // still none
	g.table(3, time.Minute, 0, named(t, "a"))
	for _, w := range waiting {
		if r := <-w; r.status != 200 || r.body != "a" {
			t.Errorf("held request got %+v", r)
		}
	}
	if s := g.describe().Services[0]; s.Held != 2 || s.Failed != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestHoldEndsWith503(t *testing.T) {
	g := newRig(t)
	g.table(1, 50*time.Millisecond, 0)
	began := time.Now()
	resp, err := http.Get(g.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	body := read(t, resp)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "no instance") {
		t.Errorf("%s %v %q", resp.Status, resp.Header, body)
	}
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("held for %s only", took)
	}
	g.table(2, 0, 0)
	if status, _ := g.get("/"); status != 503 {
		t.Errorf("without hold: %d", status)
	}
}

func TestHeldRequestsAreBounded(t *testing.T) {
	g := newRig(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.start(Config{RunDir: g.dir, MaxHeld: 2, Grace: time.Second})
	g.table(1, time.Minute, 0)
	first, second := g.ask("GET", "/", nil), g.ask("GET", "/", nil)
	g.await("two requests to be held", func() bool { h, _ := g.Health(t.Context()); return h.Held == 2 })
	if status, body := g.get("/"); status != 503 || !strings.Contains(body, "too many") {
		t.Errorf("%d %q", status, body)
	}
	g.table(2, time.Minute, 0, named(t, "a"))
	for _, w := range []<-chan reply{first, second} {
		if r := <-w; r.body != "a" {
			t.Errorf("held request got %+v", r)
		}
	}
}

func TestHeldRequestSurvivesUnreachableBackend(t *testing.T) {
	g := newRig(t)
	dead := rollout.Backend{ID: "dead", Address: freeAddr(t), Weight: 1}
	g.table(1, time.Minute, 0, dead)
	r := g.ask("POST", "/", strings.NewReader("body"))
	g.await("the request to be held", func() bool { h, _ := g.Health(t.Context()); return h.Held == 1 })
	g.table(2, time.Minute, 0, named(t, "a"))
	if got := <-r; got.status != 200 || got.body != "a" {
		t.Errorf("got %+v", got)
	}
	dead.ID = "dead2"
	g.table(3, 60*time.Millisecond, 0, dead)
	began := time.Now()
	if status, body := g.get("/"); status != 503 || !strings.Contains(body, "accepts connections") {
		t.Errorf("%d %q", status, body)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("held for %s, want 60 ms", took)
	}
}

func TestRouteThatGoesAwayReleasesWhoWaits(t *testing.T) {
	g := newRig(t)
	g.table(1, time.Minute, 0)
	r := g.ask("GET", "/", nil)
	g.await("the request to be held", func() bool { h, _ := g.Health(t.Context()); return h.Held == 1 })
	g.apply(shop, rollout.Table{Generation: 2, Listen: g.addr})
	if got := <-r; got.status != 503 {
		t.Errorf("got %+v", got)
	}
	if status, _ := g.get("/"); status != 404 {
		t.Errorf("nothing is routed, but: %d", status)
	}
}
