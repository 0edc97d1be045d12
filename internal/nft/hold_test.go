package nft

import (
	"testing"
	"time"

	"github.com/google/nftables"
)

// TestHold: while there is no backend new connections wait, from the host and from
// instances, and get through when there is one.
func TestHold(t *testing.T) {
	w := newWorld(t)
	a, client := w.instance(2), w.instance(3)
	x := a.serve(6379)
	w.apply(redis(1, x))
	to := w.address(production, "redis", 6379)
	w.apply(redis(2))
	answers := make(chan error, 2)
	began := time.Now()
	for _, from := range []*place{client, w.hostPlace()} {
		go func() {
			_, _, err := from.ask(to)
			answers <- err
		}()
	}
	w.until("two connections wait", func() bool { return w.waitingFor(t) == 2 })
	select {
	case err := <-answers:
		t.Fatalf("nobody answers and yet: %v", err)
	default:
	}
	w.apply(redis(3, x))
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	t.Logf("through after %v", time.Since(began))
	w.down(4, production)
}

// waitingFor counts the connections that wait, as the kernel knows them.
func (w *world) waitingFor(t *testing.T) int {
	t.Helper()
	w.Router.mu.Lock()
	defer w.Router.mu.Unlock()
	waiting, _ := newRuleset(&w.kernel, w.table, bridge, w.book).waiting(chainName(production, "redis"), 0)
	n := 0
	must(t, w.kernel.ask(func(c *nftables.Conn) error {
		elements, err := c.GetSetElements(waiting)
		n = len(elements)
		return err
	}))
	return n
}

// TestHoldEnds: after the service's Hold a connection is refused, at its next SYN.
func TestHoldEnds(t *testing.T) {
	w := newWorld(t)
	client := w.instance(3)
	table := redis(1)
	table.Services[0].Hold = 500 * time.Millisecond
	w.apply(table)
	for name, from := range map[string]*place{"instance": client, "host": w.hostPlace()} {
		began := time.Now()
		_, _, err := from.ask(w.address(production, "redis", 6379))
		if took := time.Since(began); !refused(err) || took < 500*time.Millisecond || took > 3*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	table = redis(2)
	table.Services[0].Hold = 0
	w.apply(table)
	began := time.Now()
	if _, _, err := client.ask(w.address(production, "redis", 6379)); !refused(err) || time.Since(began) > 500*time.Millisecond {
		t.Errorf("without a hold: %v after %v", err, time.Since(began))
	}
	w.down(3, production)
}
