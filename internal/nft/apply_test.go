package nft

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestNothingWithoutTCP: a table without TCP services touches neither kernel nor disk.
func TestNothingWithoutTCP(t *testing.T) {
	w := newWorld(t)
	before := w.host()
	w.apply(rollout.Table{Generation: 4, Services: []rollout.Service{{Name: "web", Path: "/"}}})
	if w.Routes(production) || w.status().Generation != 0 || w.host() != before || w.book.Block.IsValid() {
		t.Errorf("something was touched:\n%s", w.host())
	}
	must(t, w.Close(t.Context()))
}

func TestGenerations(t *testing.T) {
	w := newWorld(t)
	a, b := w.instance(2), w.instance(3)
	x, y := a.serve(6379), b.serve(6379)
	w.apply(redis(5, x))
	w.apply(redis(5, x))
	for name, table := range map[string]rollout.Table{"older": redis(4, y), "older, the same content": redis(4, x), "other content": redis(5, y)} {
		if f := fault.Of(w.Apply(t.Context(), production, table)); f == nil || f.Kind != fault.Conflict {
			t.Errorf("%s: %v", name, f)
		}
	}
	if w.status().Generation != 5 {
		t.Errorf("%+v", w.status())
	}
	w.down(6, production)
}

// TestFlushed: somebody flushes the kernel's tables. The acknowledgement goes with them, and
// the same table again mends it.
func TestFlushed(t *testing.T) {
	w := newWorld(t)
	a := w.instance(2)
	x := a.serve(6379)
	w.apply(redis(5, x))
	conn, err := nftables.New()
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	if s := w.status(); s.Generation != 0 || !w.Routes(production) {
		t.Errorf("acknowledged what is not there: %+v", s)
	}
	must(t, w.Close(t.Context())) // which leaves what should be there to the next server
	w.reopen()
	w.apply(redis(5, x))
	if who, _, err := w.hostPlace().ask(w.address(production, "redis", 6379)); err != nil || who != a.addr.String() {
		t.Errorf("%q, %v", who, err)
	}
	w.down(6, production)
}

// TestListenTaken: an address on the host that a program has, or another service.
func TestListenTaken(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp4", "127.0.0.1:7001")
	must(t, err)
	table := redis(1)
	table.Services[0].Listen = "127.0.0.1:7001"
	f := fault.Of(w.Apply(t.Context(), production, table))
	if f == nil || f.Kind != fault.Conflict || !strings.Contains(f.What, "127.0.0.1:7001") {
		t.Errorf("a program has it: %v", f)
	}
	must(t, l.Close())
	w.apply(table)
	staging := rollout.Key{App: "shop", Env: "staging"}
	table.Services[0].Listen = ":7001"
	f = fault.Of(w.Apply(t.Context(), staging, table))
	if f == nil || f.Kind != fault.Conflict || !strings.Contains(f.What, "shop/production/redis") {
		t.Errorf("another service has it: %v", f)
	}
	table.Generation, table.Services[0].Listen = 2, "127.0.0.1:7002"
	w.apply(table)
	w.down(3, production, staging)
}

// TestGuards: what the host's settings would let through for our sake does not get through. A
// datagram shows one direction alone: nothing has to come back.
func TestGuards(t *testing.T) {
	w := newWorld(t)
	a, b, out := w.instance(2), w.instance(3), w.neighbour()
	table := redis(1, a.serve(6379))
	table.Services[0].Listen = "0.0.0.0:7000"
	w.apply(table)
	out.route(subnet, netip.MustParseAddr("192.0.2.1"))
	b.loopbackOutside()
	write(t, setting(bridge, "accept_local"), "1") // else the kernel drops what comes as 127.0.0.0/8 by itself
	host := w.hostPlace()
	if !a.hears("10.213.1.2:7003", host, netip.IPv4Unspecified()) || !host.hears("10.213.0.1:7004", b, b.addr) {
		t.Error("the test hears nothing at all")
	}
	for name, c := range map[string]struct {
		from, at *place
		as       netip.Addr
		to       string
	}{
		"an instance to the host's loopback":                  {b, host, b.addr, "127.0.0.1:7003"},
		"an instance to the host as a loopback address":       {b, host, netip.MustParseAddr("127.0.0.9"), "10.213.0.1:7004"},
		"a neighbour to an instance, by the link that opened": {out, a, out.addr, "10.213.1.2:7003"},
	} {
		if c.at.hears(c.to, c.from, c.as) {
			t.Error(name)
		}
	}
	w.down(2, production)
}

func TestSupport(t *testing.T) {
	for _, c := range Support() {
		if !c.OK || c.Detail == "" || c.Fix == "" {
			t.Errorf("%+v", c)
		}
	}
}
