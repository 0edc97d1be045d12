package load

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func start(t *testing.T, cfg Config) *Run {
	t.Helper()
	r, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryKindOfClientAsks(t *testing.T) {
	var http1, http2, closing atomic.Int64
	all := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor == 2:
			http2.Add(1)
		case r.Close:
			closing.Add(1)
		default:
			http1.Add(1)
		}
		if r.Host != "shop.example" {
			w.WriteHeader(http.StatusNotFound)
		}
		if http1.Load() > 10 && http2.Load() > 10 && closing.Load() > 10 {
			select {
			case all <- struct{}{}:
			default:
			}
		}
	})
	run := start(t, Config{URL: s.URL, Host: "shop.example", KeepAlive: 2, NewConn: 2, HTTP2: 1, Rate: 5000})
	<-all
	report := run.Stop()
	if report.Failed != 0 || report.Requests != http1.Load()+http2.Load()+closing.Load() {
		t.Errorf("%d requests, %d failed, want %d and 0: %v", report.Requests, report.Failed, http1.Load()+http2.Load()+closing.Load(), report.FirstErrors)
	}
	if report.P50 <= 0 || report.P99 < report.P50 || report.Max < report.P99 {
		t.Errorf("latencies p50 %s, p99 %s, max %s are not in order", report.P50, report.P99, report.Max)
	}
}

func TestMarkersTellWhenTheVersionChanged(t *testing.T) {
	var version atomic.Value
	version.Store("v1")
	seen := make(chan string)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		v := version.Load().(string)
		w.Write([]byte("this is " + v))
		select {
		case seen <- v:
		default:
		}
	})
	run := start(t, Config{URL: s.URL, KeepAlive: 3, NewConn: 1, Rate: 5000, Markers: []string{"v1", "v2"}})
	for <-seen != "v1" {
	}
	before := time.Now()
	version.Store("v2")
	for range 100 {
		for <-seen != "v2" {
		}
	}
	report := run.Stop()
	if report.Markers["v1"].Count == 0 || report.Markers["v2"].Count < 100-4 {
		t.Fatalf("markers: %+v", report.Markers)
	}
	if at := report.AllOn("v2"); at.Before(before) || at.After(report.Started.Add(report.Took)) {
		t.Errorf("all on v2 at %s, want after %s", at, before)
	}
	if !report.AllOn("v3").IsZero() {
		t.Error("a version that was never seen has all the traffic")
	}
}

func TestFailuresAreCountedAndTheFirstOnesTold(t *testing.T) {
	var asked atomic.Int64
	enough := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n == 100 {
			close(enough)
		}
		if n%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusBadGateway)
	})
	run := start(t, Config{URL: s.URL, NewConn: 2, Rate: 2000, For: time.Minute})
	<-enough
	report := run.Stop()
	if report.Failed != report.Requests || report.Requests < 100 {
		t.Errorf("%d of %d failed, want all", report.Failed, report.Requests)
	}
	if len(report.FirstErrors) != maxErrors || !strings.Contains(strings.Join(report.FirstErrors, "\n"), "status 502") {
		t.Errorf("first errors: %q", report.FirstErrors)
	}
}

func TestRateAndTimeAreBounded(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	run := start(t, Config{URL: s.URL, KeepAlive: 8, Rate: 100, For: 300 * time.Millisecond})
	run.done.Wait()
	report := run.Stop()
	if report.Requests < 5 || report.Requests > 45 {
		t.Errorf("%d requests in %s at 100 a second", report.Requests, report.Took)
	}
	for name, cfg := range map[string]Config{
		"no workers":       {URL: s.URL},
		"too fast":         {URL: s.URL, KeepAlive: 1, Rate: MaxRate + 1},
		"too long":         {URL: s.URL, KeepAlive: 1, For: time.Hour},
		"https":            {URL: "https://127.0.0.1/", KeepAlive: 1},
		"somebody else":    {URL: "http://192.0.2.1/", KeepAlive: 1},
		"too many workers": {URL: s.URL, KeepAlive: MaxWorkers + 1},
	} {
		if _, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEachRequestHasItsTimeout(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	run := start(t, Config{URL: s.URL, KeepAlive: 1, Timeout: 20 * time.Millisecond, For: 200 * time.Millisecond})
	run.done.Wait()
	report := run.Stop()
	if report.Failed == 0 || report.Failed != report.Requests {
		t.Errorf("%d of %d failed, want all by timeout", report.Failed, report.Requests)
	}
}

func TestCheckSeesStatusAndBody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("torn")) })
	ctx, cancel := context.WithCancel(t.Context())
	run, err := Start(ctx, Config{URL: s.URL, KeepAlive: 1, Check: func(status int, body []byte) error {
		defer cancel()
		if status == 200 && string(body) == "torn" {
			return errors.New("the page is torn")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	run.done.Wait()
	if report := run.Stop(); report.Failed != report.Requests || !strings.Contains(report.FirstErrors[0], "the page is torn") {
		t.Errorf("report: %+v", report)
	}
}

func TestHistogramKeepsValuesWithinTwoPercent(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 63, 64, 127, 128, 129, 1000, 12345, time.Millisecond, 17 * time.Second, 1<<62 + 5} {
		end := upperEnd(bucketOf(uint64(d)))
		if end < uint64(d) || float64(end-uint64(d)) > 0.02*float64(d) {
			t.Errorf("%d ends up as %d", d, end)
		}
	}
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*102/100 {
			t.Errorf("quantile %v is %s, want %s", q, got, want)
		}
	}
}
