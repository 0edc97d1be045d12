package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
)

// conversation is an upgraded connection to one instance, as a WebSocket is.
type conversation struct {
	a    *app
	conn net.Conn
	in   *bufio.Reader
}

// converse opens one through the router.
func (a *app) converse() *conversation {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.address)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() }) // closed already, if all went well
	if err := conn.SetDeadline(time.Now().Add(4 * patience)); err != nil {
		a.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", a.address)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		a.t.Fatalf("upgrade: %s", resp.Status)
	}
	return &conversation{a, conn, in}
}

// says sends a line and expects an instance of that version to answer.
func (c *conversation) says(version, line string) {
	c.a.t.Helper()
	fmt.Fprintln(c.conn, line)
	got, err := c.in.ReadString('\n')
	if err != nil || got != version+" "+line+"\n" {
		c.a.t.Errorf("the conversation with %s: answer %q to %q: %v", version, got, line, err)
	}
}

func (c *conversation) close() {
	if err := c.conn.Close(); err != nil {
		c.a.t.Error(err)
	}
}

// download is a long answer under way.
type download struct {
	a    *app
	n    int
	done chan struct{}
	body string
	err  error
}

// download begins to read n lines that come one every so often, and returns when
// the first is there.
func (a *app) download(n int, every time.Duration) *download {
	a.t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s/slow?n=%d&every=%d", a.address, n, every.Milliseconds()))
	if err != nil {
		a.t.Fatal(err)
	}
	in := bufio.NewReader(resp.Body)
	first, err := in.ReadString('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	d := &download{a: a, n: n, done: make(chan struct{}), body: first}
	go func() {
		defer close(d.done)
		defer resp.Body.Close()
		var rest strings.Builder
		_, d.err = in.WriteTo(&rest)
		d.body += rest.String()
	}()
	return d
}

func (d *download) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// whole expects that every line came, all from one version.
func (d *download) whole(version string) {
	d.a.t.Helper()
	<-d.done
	var want strings.Builder
	for i := range d.n {
		fmt.Fprintf(&want, "line %d of %s\n", i, version)
	}
	if d.err != nil || d.body != want.String() {
		d.a.t.Errorf("the download from %s broke off after %d of %d lines: %v", version, strings.Count(d.body, "\n"), d.n, d.err)
	}
}

// switches does something that moves the traffic from one version to another, under
// load of its own, and expects that it moved in one step: whoever asked after the
// first answer of the new version had begun was answered by the new version.
func (a *app) switches(from, to string, do func()) {
	a.t.Helper()
	run := a.load(300, "Version")
	a.awaitMarker(run, from)
	do()
	a.awaitMarker(run, to)
	r := a.unharmed(run)
	if late := r.Markers[from].LastSent.Sub(r.Markers[to].FirstBegan); late > 0 {
		a.t.Errorf("%s after the first answer of %s a request was sent that %s answered", late, to, from)
	}
	if len(r.Markers) != 2 {
		a.t.Errorf("%s to %s: others answered too: %v", from, to, r.Markers)
	}
}

// awaitMarker waits until a version answers the load.
func (a *app) awaitMarker(run *load.Run, marker string) {
	a.t.Helper()
	before := run.Report().Markers[marker].Count
	a.await("answers of "+marker, func() error {
		if n := run.Report().Markers[marker].Count - before; n < 20 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
}

// keepAsking asks for a slow answer all the time, so that each switch meets requests
// under way.
func (a *app) keepAsking(lines int, every time.Duration) *load.Run {
	a.t.Helper()
	return a.begin(load.Config{
		URL:       fmt.Sprintf("http://%s/slow?n=%d&every=%d", a.address, lines, every.Milliseconds()),
		KeepAlive: 2, NewConn: 1, HTTP2: 1, Rate: 20, MarkerHeader: "Mark",
		Check: func(status int, body []byte) error {
			if n := strings.Count(string(body), "\n"); status != http.StatusOK || n != lines {
				return fmt.Errorf("status %d, %d of %d lines", status, n, lines)
			}
			return nil
		},
	})
}

// inFlight complains until a rollout of the environment is in flight.
func (a *app) inFlight(ctx context.Context) error {
	s, err := a.client.Status(ctx, a.name, a.env)
	if err == nil && s.State.Rollout == nil {
		return fmt.Errorf("no rollout is in flight")
	}
	return err
}
