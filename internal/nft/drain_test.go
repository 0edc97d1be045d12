package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSwitchUnderLoad: new connections all the time, while the backends are replaced over and
// over. None fails, and none reaches a backend that was not in force when it was asked for.
func TestSwitchUnderLoad(t *testing.T) {
	w := newWorld(t)
	a, b, client := w.instance(2), w.instance(3), w.instance(4)
	x, y := a.serve(6379), b.serve(6379)
	w.apply(redis(1, x))
	to := w.address(production, "redis", 6379)
	var stop atomic.Bool
	var asked, failed, slowest atomic.Int64
	var all sync.WaitGroup
	for _, from := range []*place{client, client, w.hostPlace()} {
		all.Go(func() {
			for !stop.Load() {
				asked.Add(1)
				began := time.Now()
				if _, _, err := from.ask(to); err != nil {
					failed.Add(1)
					t.Error(err)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			}
		})
	}
	for n := range int64(300) {
		next, place := x, a
		if n%2 == 0 {
			next, place = y, b
		}
		w.apply(redis(n+2, next))
		if who, _, err := w.hostPlace().ask(to); err != nil || who != place.addr.String() {
			t.Fatalf("after switch %d: %q, %v", n, who, err)
		}
	}
	stop.Store(true)
	all.Wait()
	t.Logf("300 switches, %d connections, %d failed, the slowest took %v", asked.Load(), failed.Load(), time.Duration(slowest.Load()))
	w.down(1000, production)
}

// TestDrain: what is established stays with the old backend, is counted, and is cut when
// its time is over: both ends are reset, also one that only listens.
func TestDrain(t *testing.T) {
	for name, from := range map[string]func(*world) *place{
		"an instance's": func(w *world) *place { return w.instance(9) },
		"the host's":    (*world).hostPlace,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b, client := w.instance(2), w.instance(3), from(w)
			x, y := a.serve(6379), b.serve(6379)
			table := redis(1, x)
			table.Services[0].Drain, table.Services[0].Drains.TCP = time.Hour, 300*time.Millisecond
			w.apply(table)
			to := w.address(production, "redis", 6379)
			old, who, _, err := client.dial(to, 5*time.Second)
			must(t, err)
			if w.status().InFlight[x.ID] != 1 || w.status().Kinds[x.ID].TCP != 1 {
				t.Fatalf("one connection to %s: %+v", who, w.status())
			}
			w.apply(redis(2, y))
			echo(t, old)
			if s := w.status(); s.InFlight[x.ID] != 1 || s.InFlight[y.ID] != 0 {
				t.Errorf("the old backend drains: %+v", s)
			}
			fresh, who, _, err := client.dial(to, 5*time.Second)
			if err != nil || who != b.addr.String() {
				t.Fatalf("a new connection: %q, %v", who, err)
			}
			must(t, old.SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := old.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("at the end of the drain: %v, want a reset", err)
			}
			echo(t, fresh)
			w.until("the cut is told", func() bool { return w.status().Cut[x.ID].TCP == 1 })
			w.until("the connections to be counted anew", func() bool { // which is not done again at once
				s := w.status()
				return s.InFlight[x.ID] == 0 && s.InFlight[y.ID] == 1 && s.Generation == 2
			})
			must(t, fresh.Close())
			w.down(3, production)
		})
	}
}

// echo checks that a connection carries data both ways.
func echo(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := fmt.Fprintln(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	must(t, c.SetDeadline(time.Time{}))
}

// TestDrainComesBack: a backend that is put back while it drains keeps what it has.
func TestDrainComesBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.instance(2), w.instance(3)
	x, y := a.serve(6379), b.serve(6379)
	table := redis(1, x)
	table.Services[0].Drain = 200 * time.Millisecond
	w.apply(table)
	c, _, _, err := w.hostPlace().dial(w.address(production, "redis", 6379), 5*time.Second)
	must(t, err)
	w.apply(redis(2, y))
	w.apply(redis(3, x))
	<-time.After(300 * time.Millisecond) // the time that it would have had
	echo(t, c)
	must(t, c.Close())
	w.down(4, production)
}

// TestKilledServer: the routes go on without a server, and the next one goes on with the drain.
func TestKilledServer(t *testing.T) {
	w := newWorld(t)
	a, b := w.instance(2), w.instance(3)
	x, y := a.serve(6379), b.serve(6379)
	table := redis(1, x)
	table.Services[0].Drain = 400 * time.Millisecond
	w.apply(table)
	to := w.address(production, "redis", 6379)
	old, _, _, err := w.hostPlace().dial(to, 5*time.Second)
	must(t, err)
	w.apply(redis(2, y))
	w.reopen()
	must(t, old.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) { // nobody has asked for the status
		t.Errorf("the next server cuts: %v", err)
	}
	if s := w.status(); s.Generation != 2 || s.InFlight[x.ID] != 0 || s.Cut[x.ID].TCP != 1 {
		t.Errorf("what the next server found and did: %+v", s)
	}
	if got := w.address(production, "redis", 6379); got != to {
		t.Errorf("the address was %s, is %s", to, got)
	}
	w.reopen()
	if who, _, err := w.hostPlace().ask(to); err != nil || who != b.addr.String() {
		t.Errorf("%q, %v", who, err)
	}
	if w.status().Cut[x.ID].TCP != 1 {
		t.Errorf("what was cut is forgotten: %+v", w.status())
	}
	w.apply(redis(2, y))
	w.apply(redis(3, x))
	w.down(4, production)
}

// TestKilledAmidChange: the server dies after the routes changed, before it noted who leaves.
func TestKilledAmidChange(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.instance(2), w.instance(3), w.instance(4)
	x, y, rests := a.serve(6379), b.serve(6379), c.serve(6379)
	rests.Weight = 0
	table := redis(1, x)
	table.Services[0].Drain = 300 * time.Millisecond
	w.apply(table)
	w.Router.mu.Lock()
	rules := newRuleset(&w.kernel, w.table, bridge, w.book)
	before, err := rules.read(production)
	must(t, err)
	w.Router.mu.Unlock()
	w.apply(redis(2, y, rests))
	w.Router.mu.Lock()
	after, err := rules.read(production)
	must(t, err)
	amid := environment{stamp: after.stamp, services: after.services, members: arriving(before, after)}
	must(t, w.noteMembers(rules, production, after, amid)) // as it was in that moment
	w.Router.mu.Unlock()
	w.reopen()
	after, err = newRuleset(&w.kernel, w.table, bridge, w.book).read(production)
	must(t, err)
	for id, leaves := range map[string]bool{x.ID: true, y.ID: false, rests.ID: false} {
		for _, m := range after.members {
			if m.id == id && m.till.IsZero() == leaves {
				t.Errorf("%s, leaving %v", m, leaves)
			}
		}
	}
	w.down(3, production)
}
