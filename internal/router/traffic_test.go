package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// traffic waits until a release has as many requests, and gives its counts.
func (g *rig) traffic(release string, requests int64) rollout.Traffic {
	g.t.Helper()
	var t rollout.Traffic
	g.await(fmt.Sprintf("%d requests of %s", requests, release), func() bool {
		t = g.describe().Traffic[rollout.TrafficKey("web", release)]
		return t.Requests >= requests
	})
	return t
}

func TestTrafficOfEachRelease(t *testing.T) {
	g := newRig(t)
	fails, _ := instance(t, "fails", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/404":
			w.WriteHeader(404)
		case "/broken":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
		case "/missing":
			panic(http.ErrAbortHandler)
		default:
			io.WriteString(w, "ok")
		}
	})
	match := &rollout.Match{Header: "X-Canary", Value: "1", Release: "r2"}
	svc := rollout.Service{Name: "web", Path: "/", Match: match, Backends: []rollout.Backend{of(named(t, "ok"), "r1", 1), of(fails, "r2", 0)}}
	g.apply(shop, rollout.Table{Generation: 1, Listen: g.addr, Services: []rollout.Service{svc}})
	for _, path := range []string{"/", "/500", "/404", "/broken", "/missing"} {
		for range 3 {
			req, _ := http.NewRequest("POST", g.url(path), nil)
			req.Header.Set("X-Canary", "1")
			if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}
	for range 7 {
		g.get("/")
	}
	got := g.traffic("r2", 15)
	g.await("broken answers to be counted", func() bool { got = g.traffic("r2", 15); return got.Errors >= 9 })
	if got.Requests != 15 || got.Errors != 9 {
		t.Errorf("r2: %d requests, %d errors, want 15 and 9", got.Requests, got.Errors)
	}
	sum := int64(0)
	for _, n := range got.Latency {
		sum += n
	}
	if sum != 12 || len(got.Latency) != len(rollout.LatencyBounds)+1 {
		t.Errorf("r2: %d latencies in %d classes, want 12 in %d", sum, len(got.Latency), len(rollout.LatencyBounds)+1)
	}
	if r1 := g.traffic("r1", 7); r1.Requests != 7 || r1.Errors != 0 {
		t.Errorf("r1: %+v", r1)
	}
}

// What an instance is judged by does not include clients that gave up, nor what
// the router cut itself.
func TestClientThatGoesAwayIsNoError(t *testing.T) {
	g := newRig(t)
	b, arrived, released := slow(t, "a")
	g.table(1, time.Second, time.Minute, of(b, "r1", 1))
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", g.url("/"), nil)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		}()
		<-arrived
		cancel()
		<-ended
	}
	g.await("clients to be gone", func() bool { return g.describe().Services[0].Gone == 5 })
	cut := g.ask("POST", "/", nil)
	<-arrived
	svc := rollout.Service{Name: "web", Path: "/", Backends: []rollout.Backend{of(named(t, "b"), "r2", 1)}}
	g.apply(shop, rollout.Table{Generation: 2, Listen: g.addr, Services: []rollout.Service{svc}})
	g.apply(shop, rollout.Table{Generation: 3, Listen: g.addr, Services: []rollout.Service{svc}})
	close(released)
	<-cut
	if got := g.traffic("r1", 1); got.Errors != 0 || got.Requests != 1 {
		t.Errorf("%+v", got)
	}
}

// A client that goes away in the middle of an answer breaks it off, not the instance.
func TestClientThatStopsReadingIsNoError(t *testing.T) {
	g := newRig(t)
	ended := make(chan struct{})
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	g.table(1, time.Second, time.Minute, of(b, "r1", 1))
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended
	g.await("the request to be over", func() bool { return g.describe().InFlight["a"] == 0 })
	if got := g.traffic("r1", 1); got.Errors != 0 {
		t.Errorf("%d errors", got.Errors)
	}
}

// The numbers stay while instances of a release come and go.
func TestTrafficGoesOnOverTables(t *testing.T) {
	g := newRig(t)
	for generation := range 3 {
		g.table(int64(generation+1), time.Second, 0, of(named(t, fmt.Sprint("i", generation)), "r1", 1))
		g.get("/")
	}
	g.table(9, time.Second, 0, of(named(t, "other"), "r2", 1))
	if got := g.traffic("r1", 3); got.Requests != 3 {
		t.Errorf("%d requests after the release left", got.Requests)
	}
}

func TestTrafficOfReleasesThatLeftIsForgotten(t *testing.T) {
	now := time.Now()
	env := &environment{}
	for i := range 5 {
		next := &environment{table: web(1, "", "", "/", rollout.Backend{ID: "a", Release: fmt.Sprint("r", i)})}
		next.keepTraffic(env, now)
		env, now = next, now.Add(trafficKept/2)
	}
	if len(env.traffic) != 3 || env.traffic["web@r4"] == nil || env.traffic["web@r2"] == nil {
		t.Errorf("kept: %v", env.traffic)
	}
}

func TestMetrics(t *testing.T) {
	g := newRig(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	g.start(Config{RunDir: g.dir, Metrics: addr})
	g.table(1, time.Second, time.Second, of(named(t, "a"), `r"1\`, 1))
	for range 3 {
		g.get("/")
	}
	g.traffic(`r"1\`, 3)
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, resp)
	for _, want := range []string{
		`ashlar_router_requests_total{app="shop",env="production",service="web",release="r\"1\\",code="2xx"} 3`,
		`ashlar_router_errors_total{app="shop",env="production",service="web",release="r\"1\\"} 0`,
		`ashlar_router_request_duration_seconds_bucket{app="shop",env="production",service="web",release="r\"1\\",le="+Inf"} 3`,
		`ashlar_router_request_duration_seconds_count{app="shop",env="production",service="web",release="r\"1\\"} 3`,
		`ashlar_router_in_flight{app="shop",env="production",instance="a",kind="request"} 0`,
		`ashlar_router_cut_total{app="shop",env="production",kind="websocket"} 0`,
		`ashlar_router_table_generation{app="shop",env="production"} 1`,
		"# TYPE ashlar_router_request_duration_seconds histogram\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if !strings.HasPrefix(l, "# ") && strings.Count(l, "{") != 1 {
			t.Errorf("odd line %q", l)
		}
	}
	for _, bad := range []string{"0.0.0.0:9464", "example.org:1", "127.0.0.1", ":9464"} {
		wantFault(t, Serve(t.Context(), Config{RunDir: t.TempDir(), Metrics: bad}), fault.Invalid, bad)
	}
}
