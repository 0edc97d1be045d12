package nft

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// BenchmarkSwitch replaces all backends of a service by others: the whole Apply, and the
// transaction in it, which is the time that the kernel takes to switch.
func BenchmarkSwitch(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			generation := int64(0)
			sets := [2][]rollout.Backend{}
			for i := range 2 * n {
				sets[i%2] = append(sets[i%2], rollout.Backend{
					ID: fmt.Sprint("shop-production-redis-", i), Address: fmt.Sprintf("10.213.%d.%d:6379", i/250, 2+i%250), Weight: 1,
				})
			}
			var took []float64
			for b.Loop() {
				generation++
				w.apply(redis(generation, sets[generation%2]...))
				took = append(took, float64(w.kernel.took)/float64(time.Millisecond))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "ms/transaction")
			w.down(generation+1, production)
		})
	}
}

// BenchmarkEcho sends 64 bytes there and back on kept connections, from the host to an
// instance: by its own address, and by its service.
func BenchmarkEcho(b *testing.B) {
	for _, how := range []string{"direct", "service", "direct again", "service again"} {
		b.Run(how, func(b *testing.B) {
			w := newWorld(b)
			a := w.instance(2)
			w.apply(redis(1, a.serve(6379)))
			to := w.address(production, "redis", 6379)
			if how[0] == 'd' {
				to = a.addr.String() + ":6379"
			}
			const clients = 8
			var all sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				c, _, _, err := w.hostPlace().dial(to, 5*time.Second)
				must(b, err)
				all.Go(func() { echoes(b, c, b.N/clients+min(1, max(0, b.N%clients-i))) })
			}
			all.Wait()
			b.StopTimer()
			w.down(2, production)
		})
	}
}

func echoes(b *testing.B, c net.Conn, n int) {
	line := make([]byte, 64)
	for range n {
		if _, err := c.Write(line); err != nil {
			b.Error(err)
			return
		}
		if _, err := io.ReadFull(c, line); err != nil {
			b.Error(err)
			return
		}
	}
	if err := c.Close(); err != nil {
		b.Error(err)
	}
}
