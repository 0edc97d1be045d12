package nft

import (
	"fmt"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// BenchmarkSwitch replaces all backends of a service by others.
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
			for b.Loop() {
				generation++
				table := redis(generation, sets[generation%2]...)
				table.Services[0].Drain = 1
				w.apply(table)
			}
			b.StopTimer()
			w.down(generation+1, production)
		})
	}
}
