package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// says is an instance that answers each request with bytes of its own choice, and
// keeps its connections as long as say returns true.
func says(t *testing.T, id string, say func(n int64, w io.Writer) bool) rollout.Backend {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var asked atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if !say(asked.Add(1), c) {
						return
					}
				}
			}()
		}
	}()
	return rollout.Backend{ID: id, Address: l.Addr().String(), Weight: 1, Release: "r1"}
}

func TestAnswersThatAreNone(t *testing.T) {
	g := newRig(t)
	for generation, text := range []string{
		"", "\r\n", "garbage\r\n\r\n", "HTTP/1.1 99 Odd\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: what\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 300<<10) + "\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 10_000),
	} {
		b := says(t, fmt.Sprint("i", generation), func(_ int64, w io.Writer) bool { io.WriteString(w, text); return false })
		g.table(int64(generation+1), 0, 0, b)
		if r := <-g.ask("POST", "/", nil); r.err != nil || r.status != http.StatusBadGateway {
			t.Errorf("%.40q became %d %.40q %v, want 502", text, r.status, r.body, r.err)
		}
	}
	if got := g.traffic("r1", 10); got.Errors != got.Requests {
		t.Errorf("%d errors of %d requests", got.Errors, got.Requests)
	}
}

// A header without an end takes neither memory nor time without end.
func TestEndlessHeader(t *testing.T) {
	g := newRig(t)
	g.table(1, 0, 0, says(t, "a", func(_ int64, w io.Writer) bool {
		_, err := io.WriteString(w, "HTTP/1.1 200 OK\r\n")
		for err == nil {
			_, err = io.WriteString(w, "X-More: and more\r\n")
		}
		return false
	}))
	if r := <-g.ask("POST", "/", nil); r.status != http.StatusBadGateway {
		t.Errorf("%+v, want 502", r)
	}
}

// What an instance sends beyond its answer never becomes the answer to another client.
func TestAnswersDoNotMixUp(t *testing.T) {
	g := newRig(t)
	evil := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	g.table(1, 0, 0, says(t, "a", func(_ int64, w io.Writer) bool {
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"+evil)
		return true
	}))
	for range 20 {
		if r := <-g.ask("POST", "/", nil); r.body != "ok" {
			t.Fatalf("%+v", r)
		}
	}
	later := make(chan struct{})
	g.table(2, 0, 0, says(t, "b", func(n int64, w io.Writer) bool {
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if n == 1 {
			go func() { <-later; io.WriteString(w, evil); later <- struct{}{} }()
		}
		return true
	}))
	for i := range 3 {
		if r := <-g.ask("POST", "/", nil); r.body != "ok" {
			t.Fatalf("request %d: %+v", i, r)
		}
		if i == 0 {
			later <- struct{}{}
			<-later
		}
	}
}

// An instance that closes a kept connection just as the next request is sent costs
// nothing that may be repeated, also where it is the only one.
func TestConnectionClosedBetweenRequests(t *testing.T) {
	g := newRig(t)
	g.table(1, 0, 0, says(t, "a", func(n int64, w io.Writer) bool {
		if n%2 == 0 {
			return false // the second request on a connection finds its end
		}
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return true
	}))
	for range 10 {
		if r := <-g.ask("GET", "/", nil); r.body != "ok" {
			t.Fatalf("%+v", r)
		}
	}
	if s := g.describe().Services[0]; s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// A client that takes nothing of its answer is cut with the rest at the end of the
// drain time, and keeps nothing in the router.
func TestClientThatNeverReads(t *testing.T) {
	g := newRig(t)
	var written atomic.Int64
	old, _ := instance(t, "old", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
			written.Add(1)
		}
	})
	g.table(1, 0, 50*time.Millisecond, old)
	c := g.keep()
	fmt.Fprintf(c.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	seen, same := int64(-1), 0
	g.await("everything between them to be full", func() bool {
		if n := written.Load(); n != seen || n == 0 {
			seen, same = n, 0
		}
		same++
		return same > 100
	})
	g.table(2, 0, 0, named(t, "new"))
	g.await("the request to be cut", func() bool { return g.describe().CutTotal.Requests == 1 })
	g.await("nothing to be left of it", func() bool { h, err := g.Health(t.Context()); return err == nil && h.Active == 0 })
}

func TestClientThatSendsItsHeaderSlowly(t *testing.T) {
	t.Parallel() // it takes as long as a header may
	g := newRig(t)
	g.table(1, 0, 0, named(t, "a"))
	c := g.keep()
	began := time.Now()
	fmt.Fprintf(c.c, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(c.c, "s"); err != nil {
			break
		}
		if time.Since(began) > 2*headerTimeout {
			t.Fatal("the connection is still open")
		}
	}
}

// Uploads that are never read are bounded by what the kernel keeps.
func TestInstanceThatStopsReading(t *testing.T) {
	g := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g.table(1, 0, 100*time.Millisecond, rollout.Backend{ID: "old", Address: l.Addr().String(), Weight: 1})
	under := g.ask("POST", "/", endless{})
	g.await("the request to be under way", func() bool { return g.describe().InFlight["old"] == 1 })
	g.table(2, 0, 0, named(t, "new"))
	if r := <-under; r.err == nil && r.status != http.StatusBadGateway {
		t.Errorf("%+v", r)
	}
	g.await("nothing to be left of it", func() bool { h, err := g.Health(t.Context()); return err == nil && h.Active == 0 })
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// FuzzCookies compares with net/http where that reads a cookie at all.
func FuzzCookies(f *testing.F) {
	for _, s := range []string{"a=1", "a=1; a=2", `a="x"`, `a="`, ";;=;a=;", "a", "A=1;a =2; a=3=4", "\x00=\x00;a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var got []string
		for v := range cookies(http.Header{"Cookie": {line}}, "a") {
			got = append(got, v)
		}
		for _, c := range (&http.Request{Header: http.Header{"Cookie": {line}}}).CookiesNamed("a") {
			found := false
			for _, v := range got {
				found = found || v == c.Value
			}
			if !found {
				t.Errorf("%q: net/http reads %q, found %q", line, c.Value, got)
			}
		}
	})
}
