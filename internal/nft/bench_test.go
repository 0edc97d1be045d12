package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
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
				took = append(took, float64(w.took)/float64(time.Millisecond))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "ms/transaction")
			w.down(generation+1, production)
		})
	}
}

// BenchmarkRequests asks a small http server on kept connections, from the host to an
// instance: by its own address, and by its service.
func BenchmarkRequests(b *testing.B) {
	for _, how := range []string{"direct", "service", "direct again", "service again"} {
		b.Run(how, func(b *testing.B) {
			w := newWorld(b)
			a := w.instance(2)
			w.apply(redis(1, a.serveHTTP(6379)))
			to := w.address(production, "redis", 6379)
			if strings.HasPrefix(how, "direct") {
				to = a.addr.String() + ":6379"
			}
			const clients = 8
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
			get(b, client, to)
			b.SetParallelism(clients / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					get(b, client, to)
				}
			})
			b.StopTimer()
			client.CloseIdleConnections()
			w.down(2, production)
		})
	}
}

func (p *place) serveHTTP(port int) rollout.Backend {
	p.w.t.Helper()
	var l net.Listener
	must(p.w.t, p.run(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", p.addr, port))
		return err
	}))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })}
	p.w.closes(s)
	go func() { _ = s.Serve(l) }()
	return rollout.Backend{ID: "web", Address: l.Addr().String(), Weight: 1}
}

func get(b *testing.B, client *http.Client, to string) {
	resp, err := client.Get("http://" + to + "/")
	if err != nil {
		b.Error(err)
		return
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		b.Error(err)
	}
}
