package local

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// serverEnv makes the test program a server that starts instances until it is killed.
const serverEnv = "ASHLAR_TEST_SERVER"

// serverOrder is what such a server is told.
type serverOrder struct {
	RunDir, LogDir, Objects, Runc, Shim string
	Spec                                release.Spec
	Count                               int
}

func runServer() int {
	var o serverOrder
	err := json.Unmarshal([]byte(os.Getenv(serverEnv)), &o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p, err := New(context.Background(), Config{RunDir: o.RunDir, LogDir: o.LogDir, Objects: o.Objects, Runc: o.Runc, Shim: o.Shim})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var wg sync.WaitGroup
	for n := range o.Count {
		wg.Go(func() {
			if err := p.Start(context.Background(), env, order("i"+strconv.Itoa(n)), o.Spec); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	wg.Wait()
	select {}
}

// TestServerKilledWhileStarting kills a server somewhere in the starts of several
// instances. Its successor finds each one running or takes it away, and can start
// what is missing under the same name.
func TestServerKilledWhileStarting(t *testing.T) {
	const rounds, count = 6, 3
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	kept := 0
	for range rounds {
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.serveAndKill(count, time.Duration(random.IntN(1200))*time.Millisecond)
		w.open(t)
		for n := range count {
			id := "i" + strconv.Itoa(n)
			if w.find(id) != nil {
				kept++
			}
			w.start(id, spec("serves", serving))
			w.untilPhase(id, rollout.Ready)
		}
		w.removeAll()
	}
	t.Logf("%d of %d instances had been started", kept, rounds*count)
}

// serveAndKill lets another process be the server for a while.
func (w *world) serveAndKill(count int, after time.Duration) {
	w.t.Helper()
	b, err := json.Marshal(serverOrder{
		RunDir: w.cfg.RunDir, LogDir: w.cfg.LogDir, Objects: w.cfg.Objects, Runc: w.cfg.Runc, Shim: w.cfg.Shim,
		Spec: spec("serves", serving), Count: count,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serverEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	<-time.After(after)
	if err := cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}
