package router

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRequestsPassAsTheyCame(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s for=%s host=%s proto=%s conn=%q ae=%q",
			r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Host"),
			r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Hop"), r.Header.Get("Accept-Encoding"))
	})
	g.table(1, 0, 0, b)
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /a%2Fb/c?x=1;y=%zz HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `GET /a%2Fb/c?x=1;y=%zz shop.example for=127.0.0.1 host=shop.example proto=http conn="" ae=""`
	if got := read(t, resp); got != want {
		t.Errorf("the backend saw\n %s\nwant\n %s", got, want)
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body)))
	})
	g.table(1, 0, 0, b)
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: h2}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequest("POST", g.url("/"), strings.NewReader("stone"))
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.ProtoMajor != 2 || body != "stone" || resp.Trailer.Get("X-Sum") != "5" {
		t.Errorf("%s %q, trailer %v", resp.Proto, body, resp.Trailer)
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "got "+r.Trailer.Get("X-Request-Sum"))
		w.Header().Set("X-Announced", "1")
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "2")
	})
	g.table(1, 0, 0, b)
	req, _ := http.NewRequest("POST", g.url("/"), io.MultiReader(strings.NewReader("body")))
	req.Trailer = http.Header{"X-Request-Sum": {"77"}}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); body != "got 77" {
		t.Errorf("body %q", body)
	}
	if resp.Trailer.Get("X-Announced") != "1" || resp.Trailer.Get("X-Surprise") != "2" {
		t.Errorf("trailers %v", resp.Trailer)
	}
}

func TestStreamsAreNotHeldBack(t *testing.T) {
	g := newRig(t)
	next := make(chan string)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
		case "/known-length":
			w.Header().Set("Content-Length", "24")
		}
		for range 3 {
			io.WriteString(w, <-next)
			http.NewResponseController(w).Flush()
		}
	})
	g.table(1, 0, 0, b)
	for _, path := range []string{"/events", "/chunked", "/known-length"} {
		go func() { next <- "data: 1\n" }()
		resp, err := http.Get(g.url(path))
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(resp.Body)
		for i := 1; i <= 3; i++ { // each line must arrive before the next one is written
			if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: %q %v", path, line, err)
			}
			if i < 3 {
				next <- fmt.Sprintf("data: %d\n", i+1)
			}
		}
		resp.Body.Close()
	}
}

func TestUpgradedConnectionsPass(t *testing.T) {
	g := newRig(t)
	g.table(1, 0, 0, echoes(t, "a"))
	c, r := g.upgrade()
	for i := range 3 {
		fmt.Fprintf(c, "ping %d\n", i)
		if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("ping %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	if n := g.describe().InFlight["a"]; n != 1 {
		t.Errorf("%d in flight, want the upgraded connection", n)
	}
	c.Close()
	g.await("the upgraded connection to end", func() bool { return g.describe().InFlight["a"] == 0 })
}

func TestUpgradeToHTTP2IsNotATunnel(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "upgrade=%q", r.Header.Get("Upgrade")+r.Header.Get("Http2-Settings"))
	})
	g.table(1, 0, 0, b)
	req, _ := http.NewRequest("GET", g.url("/"), nil)
	req.Header = http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); body != `upgrade=""` {
		t.Errorf("the backend saw %s", body)
	}
}

func TestExpectContinueReachesTheBackend(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	g.table(1, 0, 0, b)
	for path, want := range map[string]string{"/yes": "HTTP/1.1 100 Continue", "/no": "HTTP/1.1 413 Request Entity Too Large"} {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path)
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
			t.Errorf("%s: %q %v, want %s", path, line, err, want)
		}
		if path == "/yes" {
			r.ReadString('\n')
			fmt.Fprint(c, "12345")
			resp, err := http.ReadResponse(r, nil)
			if err != nil || read(t, resp) != "5" {
				t.Errorf("after continue: %v %v", resp, err)
			}
		}
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	g := newRig(t)
	big := bytes.Repeat([]byte("ashlar\n"), 3<<20) // 21 MB
	b, _ := instance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		io.Copy(sum, r.Body)
		w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
		w.Write(big)
	})
	g.table(1, 0, 0, b)
	for _, body := range []io.Reader{bytes.NewReader(big), io.MultiReader(bytes.NewReader(big))} { // known length, chunked
		resp, err := http.Post(g.url("/"), "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256(big)
		if got := read(t, resp); resp.Header.Get("X-Sum") != hex.EncodeToString(want[:]) || got != string(big) {
			t.Error("bytes were changed on the way")
		}
	}
}

func TestHeadHasLengthAndNoBody(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1234") })
	g.table(1, 0, 0, b)
	resp, err := http.Head(g.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.ContentLength != 1234 || body != "" {
		t.Errorf("length %d, body %q", resp.ContentLength, body)
	}
}

func TestClientThatGoesAwayStopsTheBackend(t *testing.T) {
	g := newRig(t)
	b, arrived, _ := slow(t, "a")
	g.table(1, 0, 0, b)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", g.url("/"), nil)
	go http.DefaultTransport.RoundTrip(req)
	<-arrived
	cancel()
	g.await("the request to end at the backend", func() bool {
		s := g.describe()
		return s.InFlight["a"] == 0 && s.Services[0].Gone == 1 && s.Services[0].Failed == 0
	})
}

func TestBrokenOffAnswerIsBrokenOffForTheClient(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	g.table(1, 0, 0, b)
	if r := <-g.ask("GET", "/", nil); r.err == nil {
		t.Errorf("the client got a whole answer: %+v", r)
	}
	g.await("the failure to be counted", func() bool { return g.describe().Services[0].Failed == 1 })
}

func TestOversizedHeadersAreRefused(t *testing.T) {
	g := newRig(t)
	g.table(1, 0, 0, named(t, "a"))
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", strings.Repeat("x", 2*maxHeaderBytes))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("%q %v, want 431", line, err)
	}
}
