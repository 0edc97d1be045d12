package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// BenchmarkApply replaces tables through the socket, the file included.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("backends=%d", n), func(b *testing.B) {
			g := newRig(b)
			tables := many(n)
			generation := int64(0)
			for b.Loop() {
				generation++
				t := tables[generation%2]
				t.Generation, t.Listen = generation, g.addr
				g.apply(shop, t)
			}
		})
	}
}

// BenchmarkRead is what the router does with a table's text before the table can be in force.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("backends=%d", n), func(b *testing.B) {
			text, err := json.Marshal(many(n)[0])
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				table, err := decodeTable(text)
				if err == nil {
					_, err = normal(shop, table)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// many gives two tables with as many backends each.
func many(n int) (tables [2]rollout.Table) {
	for i := range tables {
		tables[i] = web(1, "127.0.0.1:1", "", "/")
		for j := range n {
			tables[i].Services[0].Backends = append(tables[i].Services[0].Backends,
				rollout.Backend{ID: fmt.Sprintf("i%d-%04d", i, j), Address: fmt.Sprintf("10.0.%d.%d:80", j/250, j%250+1), Weight: 1, Release: "r"})
		}
	}
	return tables
}

// BenchmarkInstall is the switch alone: from a checked and saved table to all new
// requests on other backends.
func BenchmarkInstall(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("backends=%d", n), func(b *testing.B) {
			r := newRouter(Config{RunDir: b.TempDir()})
			tables := many(n)
			i := 0
			for b.Loop() {
				r.install(shop, tables[i%2])
				i++
			}
		})
	}
}

// BenchmarkThroughput compares kept-alive requests through a router process with
// direct ones. On a busy machine the router's processor time tells more than the clock.
func BenchmarkThroughput(b *testing.B) {
	const size = 612 // an index page
	page := strings.Repeat("x", size)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, page)
	}))
	b.Cleanup(s.Close)
	g := newRig(b)
	process := g.apart()
	g.table(1, time.Second, time.Second, rollout.Backend{ID: "a", Address: s.Listener.Addr().String(), Weight: 1})
	for name, url := range map[string]string{"direct": s.URL, "router": g.url("/")} {
		b.Run(name, func(b *testing.B) {
			before := processorTime(b, process.Process.Pid)
			defer func() {
				spent := processorTime(b, process.Process.Pid) - before
				b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "router-us/op")
			}()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				tr := &http.Transport{DisableCompression: true}
				defer tr.CloseIdleConnections()
				for pb.Next() {
					req, err := http.NewRequest("GET", url, nil)
					if err != nil {
						b.Error(err)
						return
					}
					resp, err := tr.RoundTrip(req)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		})
	}
}

// processorTime reads what a process has used so far (proc(5), stat: utime and
// stime, in ticks of 10 ms).
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
