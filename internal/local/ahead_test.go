package local

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// units waits until as many shims as wanted lie ready, and names them.
func (w *world) units(want int) []string {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		found, err := filepath.Glob(filepath.Join(w.blanksDir(), "*"))
		if err != nil {
			w.t.Fatal(err)
		}
		if len(found) == want {
			return found
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d shims lie ready, want %d", len(found), want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestExpectedInstancesGetWhatLiesReady(t *testing.T) {
	w := newWorld(t)
	w.Expect(2)
	w.Expect(2) // two in all
	ready := w.units(2)
	w.start("serves", spec("serves", serving))
	w.units(1)
	if unit := filepath.Join(w.blanksDir(), w.find("serves").meta.Unit); unit != ready[0] && unit != ready[1] {
		t.Errorf("the instance was made of %s, ready were %v", unit, ready)
	}
	w.untilPhase("serves", rollout.Ready)
}

func TestWhatNobodyUsesGoes(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.patience = 50 * time.Millisecond })
	w.Expect(2)
	w.units(2)
	w.units(0)
	if left := processes(t, w.cfg.RunDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatLiesReadyGoesWithItsServer(t *testing.T) {
	w := newWorld(t)
	w.Expect(2)
	w.units(2)
	// As after kill -9: the connections end, and nobody sweeps.
	for b := w.ahead.take(); b != nil; b = w.ahead.take() {
		<-b.attached
		if err := b.client.Close(); err != nil {
			t.Fatal(err)
		}
		w.network.release(b.addr)
	}
	w.reopen(t)
	w.units(0)
}

func TestDeadShimThatLayReadyIsNotUsed(t *testing.T) {
	w := newWorld(t)
	w.Expect(1)
	b := w.ahead.blanks[0]
	<-b.attached
	pid, err := os.ReadFile(filepath.Join(w.blankDir(b.unit), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	w.kill(atoi(t, string(pid)))
	<-b.client.Done()
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
}

func TestAfterAChangeShimsLieReadyForTheNext(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.patience, c.reserve = 50*time.Millisecond, time.Hour })
	w.start("one", spec("one", serving))
	w.start("two", spec("two", serving))
	w.units(2)
	w.Expect(4)
	w.units(4)
	w.units(2) // beyond the reserve they go
	if err := w.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	w.units(0) // where nothing runs, nothing lies ready
}

func TestTheReserveGoesInTime(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.patience, c.reserve = 50*time.Millisecond, time.Second })
	w.start("one", spec("one", serving))
	w.units(1)
	w.units(0)
}
