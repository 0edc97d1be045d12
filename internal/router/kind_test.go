package router

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// kindly is an instance that holds a request of each kind until its client goes.
func kindly(t *testing.T, id string) (rollout.Backend, chan struct{}) {
	arrived := make(chan struct{}, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			arrived <- struct{}{}
			io.Copy(io.Discard, c)
			return
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			http.NewResponseController(w).Flush()
		case "/grpc":
			if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
				t.Errorf("a call came by %s, te %q", r.Proto, r.Header.Get("Te"))
			}
			w.Header().Set("Content-Type", "application/grpc")
			http.NewResponseController(w).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return rollout.Backend{ID: id, Address: s.Listener.Addr().String(), Weight: 1, Release: "r1"}, arrived
}

func h2c() *http.Transport {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: p, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
}

// open begins a request of a kind and gives what ends when it is cut.
func (g *rig) open(path string) <-chan error {
	ended := make(chan error, 1)
	req, err := http.NewRequest("POST", g.url(path), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	via := http.RoundTripper(&http.Transport{})
	switch path {
	case "/ws":
		c, r := g.upgrade()
		go func() { _, err := r.ReadByte(); c.Close(); ended <- err }()
		return ended
	case "/grpc":
		req.Header.Set("Content-Type", "application/grpc+proto")
		req.Header.Set("Te", "trailers")
		via = h2c()
	}
	go func() {
		resp, err := via.RoundTrip(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusBadGateway {
				err = errors.New(resp.Status)
			}
		}
		ended <- err
	}()
	return ended
}

// Each kind has its own time once its backend has left, is counted while it is
// under way, and what was cut of it is told.
func TestKindsDrainByTheirOwnTime(t *testing.T) {
	g := newRig(t)
	old, arrived := kindly(t, "old")
	paths := []string{"/plain", "/ws", "/events", "/grpc"}
	open := map[string]<-chan error{}
	svc := rollout.Service{Name: "web", Path: "/", Hold: time.Second, Drain: time.Hour, Backends: []rollout.Backend{old}}
	// With each table one more kind has no time any more.
	g.apply(shop, rollout.Table{Generation: 1, Listen: g.addr, Services: []rollout.Service{svc}})
	for _, p := range paths {
		open[p] = g.open(p)
		<-arrived
	}
	one := rollout.Flight{Requests: 1, WebSockets: 1, Streams: 1, GRPC: 1}
	g.await("all kinds to be counted", func() bool { s := g.describe(); return s.Kinds["old"] == one && s.InFlight["old"] == 4 })
	gone := one
	cut := rollout.Flight{}
	generation := int64(2)
	for _, c := range []struct {
		path string
		set  func(*rollout.Drains)
		n    func(*rollout.Flight) *int
	}{
		{"/events", func(d *rollout.Drains) { d.Stream = 1 }, func(f *rollout.Flight) *int { return &f.Streams }},
		{"/grpc", func(d *rollout.Drains) { d.GRPC = 1 }, func(f *rollout.Flight) *int { return &f.GRPC }},
		{"/ws", func(d *rollout.Drains) { d.WebSocket = 1 }, func(f *rollout.Flight) *int { return &f.WebSockets }},
		{"/plain", func(d *rollout.Drains) { d.Request = 1 }, func(f *rollout.Flight) *int { return &f.Requests }},
	} {
		c.set(&svc.Drains) // 1 ns
		svc.Backends = []rollout.Backend{old}
		g.apply(shop, rollout.Table{Generation: generation, Listen: g.addr, Services: []rollout.Service{svc}})
		svc.Backends = nil
		g.apply(shop, rollout.Table{Generation: generation + 1, Listen: g.addr, Services: []rollout.Service{svc}})
		generation += 2
		if err := <-open[c.path]; err == nil {
			t.Errorf("%s ended without an error", c.path)
		}
		*c.n(&gone), *c.n(&cut) = 0, 1
		g.await(c.path+" to be gone and no other", func() bool {
			s := g.describe()
			return s.Kinds["old"] == gone && s.Cut["old"] == cut && s.CutTotal == cut
		})
	}
}

func TestBidirectionalCallsStreamWithTrailers(t *testing.T) {
	g := newRig(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		rc := http.NewResponseController(w)
		rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(bytes.ToUpper(buf[:n]))
			rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", r.Header.Get("Want-Status"))
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "unannounced "+r.Trailer.Get("Client-Trailer"))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	g.table(1, time.Second, time.Second, rollout.Backend{ID: "a", Address: s.Listener.Addr().String(), Weight: 1, Release: "r1"})
	tr := h2c()
	defer tr.CloseIdleConnections()
	for _, status := range []string{"0", "5", "13"} {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", g.url("/pkg.Service/Method"), pr)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		req.Header.Set("Want-Status", status)
		req.Trailer = http.Header{"Client-Trailer": nil}
		resp, err := tr.RoundTrip(req) // the header comes before anything is sent
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"one", "two", "three"} {
			io.WriteString(pw, word)
			got := make([]byte, len(word))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != string(bytes.ToUpper([]byte(word))) {
				t.Fatalf("%q came back as %q, %v", word, got, err)
			}
		}
		req.Trailer.Set("Client-Trailer", "too")
		pw.Close()
		if rest := read(t, resp); rest != "" || resp.Trailer.Get("Grpc-Status") != status || resp.Trailer.Get("Grpc-Message") != "unannounced too" {
			t.Errorf("rest %q, trailers %v", rest, resp.Trailer)
		}
	}
	g.await("the failed call to be counted", func() bool { tr := g.traffic("r1", 3); return tr.Errors == 1 && tr.Requests == 3 })
}

// A gRPC request goes to another backend when nothing was sent, and never twice to a program.
func TestCallsAreRetriedOnlyWhenNothingWasSent(t *testing.T) {
	g := newRig(t)
	g.table(1, time.Second, time.Second, rollout.Backend{ID: "a", Address: freeAddr(t), Weight: 9}, func() rollout.Backend {
		b, _ := kindly(t, "b")
		return b
	}())
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", g.url("/grpc"), io.NopCloser(bytes.NewReader([]byte("hello"))))
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := h2c().RoundTrip(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		cancel()
		resp.Body.Close()
	}
}
