package e2e

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/load"
)

const backYAML = `  back:
    build:
      - go: {package: ./cmd/guest, ldflags: ["-s", "-w"]}
    run:
      command: [/usr/bin/back, serves]
      port: 8080
      env: {MARK: "0"}
      health: {tcp: true, interval: 200ms, start: 10s}
      stop: {grace: 2s}
      drain: 3s
    route: {tcp: 7000, listen: "LISTEN"}
environments:
`

// withBack adds a component that is reached below HTTP: by the others under its name,
// and on an address of the machine.
func (a *app) withBack() (listen string) {
	a.t.Helper()
	listen = freeAddress(a.t)
	a.edit("ashlar.yaml", "environments:\n", strings.ReplaceAll(backYAML, "LISTEN", listen))
	return listen
}

// backMark changes the back component alone: it is the second with a mark.
func (a *app) backMark(mark string) {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, "ashlar.yaml"))
	if err != nil {
		a.t.Fatal(err)
	}
	at := strings.LastIndex(string(b), `MARK: "`) + len(`MARK: "`)
	a.write("ashlar.yaml", string(b[:at])+mark+string(b[at+1:]))
}

// TestTCP: a component without http is reached by its name and on the host, is replaced without
// losing a new connection, also when the server is killed amid that, and goes without a trace.
func TestTCP(t *testing.T) {
	a := newHost(t).guest()
	listen := a.withBack()
	a.deploy()
	a.settled()
	call := "/call?" + url.Values{"variable": {"BACK_ADDR"}}.Encode()
	if got := a.get(call); !strings.Contains(got, "mark 0 instance demo-production-back-") || !strings.HasPrefix(got, "back:7000 ") {
		t.Errorf("a component calls another by its name: %q", got)
	}
	if len(a.kernelRoutes()) != 2 {
		t.Errorf("of the server the kernel has %q, want a table and a route", a.kernelRoutes())
	}
	run := a.begin(load.Config{URL: "http://" + listen + "/", NewConn: 4, Rate: 200, MarkerHeader: "Mark"})
	for _, mark := range []string{"1", "2"} {
		a.backMark(mark)
		a.deploy()
		if got := a.get(call); !strings.Contains(got, "mark "+mark) {
			t.Errorf("after the deploy of %s: %q", mark, got)
		}
	}
	a.backMark("3")
	deployed := a.background("deploy", a.env, "--yes")
	a.await("a rollout", func() error {
		if a.status().State.Rollout == nil {
			return errNotYet
		}
		return nil
	})
	a.kill()
	if got := a.get(call); !strings.Contains(got, "instance demo-production-back-") {
		t.Errorf("without a server: %q", got)
	}
	a.start()
	deployed().ok() // it has waited for the server
	a.settled()
	a.awaitMarker(run, "3")
	a.unharmed(run)
	if err := a.down(); err != nil {
		t.Fatal(err)
	}
	<-a.server.done
	if left := a.kernelRoutes(); len(left) > 0 {
		t.Errorf("left in the kernel: %q", left)
	}
	a.start()
}

// kernelRoutes is what the kernel has of the host's server for TCP services.
func (h *host) kernelRoutes() []string {
	h.t.Helper()
	var out []string
	conn, err := nftables.New()
	if err != nil {
		h.t.Fatal(err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, t := range tables {
		if t.Name == "ashlar-"+strings.TrimPrefix(h.bridge(), "ash-") {
			out = append(out, "table "+t.Name)
		}
	}
	var stored struct{ Block string }
	b, err := os.ReadFile(filepath.Join(h.dir, "services.json"))
	if err == nil {
		err = json.Unmarshal(b, &stored)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var routes []netlink.Route
	h.await("the kernel's routes, whole", func() (err error) {
		routes, err = netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		return err
	})
	first, _, _ := strings.Cut(stored.Block, "/")
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP.String() == first {
			out = append(out, "route "+r.Dst.String())
		}
	}
	return out
}
