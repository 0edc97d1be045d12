package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
)

var deploys = flag.Int("deploys", 16, "how many changes TestStrategiesUnderKills makes")

// mixedYAML is the suite's program over HTTP and Redis below it, in an environment
// whose strategy each round changes.
const mixedYAML = `app: demo
volumes:
  data: {mode: exclusive}
components:
  redis:
    build:
      - debian: {suite: bookworm, packages: [redis-server]}
    run:
      command: [/usr/bin/redis-server, --dir, /data, --protected-mode, "no", --appendonly, "yes", --save, "", --tcp-keepalive, "300"]
      user: redis
      port: 6379
      volumes: {data: /data}
      health: {exec: [/usr/bin/redis-cli, -e, ping], interval: 200ms} # it takes connections while it loads
      drain: 500ms
    route: {tcp: 6379, listen: "REDIS", hold: 20s}
  web:
    needs: [redis]
    build:
      - go: {package: ./cmd/guest, ldflags: ["-s", "-w"]}
    run:
      command: [/usr/bin/web, serves]
      port: 8080
      env: {MARK: "0"}
      health: {http: /healthz, interval: 200ms, start: 10s}
      resources: {memory: 128MiB, pids: 64}
      stop: {grace: 2s}
      drain: 40s
      tmpfs: {/tmp: 16MiB}
    route: {path: /, hold: 1m, drains: {websocket: 1s}}
environments:
  production:
    listen: ADDRESS
    strategy: blue-green # this round
    components:
      web: {run: {replicas: 2}}
`

// strategies are what a round may use.
var strategies = []string{
	"blue-green",
	"{blue-green: {warm: 3s}}",
	"{rolling: {surge: 1, unavailable: 0}}",
	"{canary: {steps: [{weight: 25, pause: 200ms}, {weight: 50, pause: 200ms}, 100]}}",
	"recreate",
}

// Deploys and rollbacks over all strategies, one after the other, while the server is
// killed at random, under every kind of load at once: kept-alive and new connections,
// HTTP/2, an upgraded connection, long downloads, and Redis through the kernel. No
// request fails, no download breaks off within its drain time, and no answer of Redis is lost.
func TestStrategiesUnderKills(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with the same moments: go test ./test/ -run TestStrategiesUnderKills -deploys %d -seed %d", *deploys, *seed)
	a := newHost(t).guest()
	redis := freeAddress(t)
	a.write("ashlar.yaml", strings.NewReplacer("ADDRESS", a.address, "REDIS", redis).Replace(mixedYAML))
	a.deploy()

	// What recreates holds requests for as long as a download goes on.
	quick := a.begin(load.Config{URL: "http://" + a.address + "/", KeepAlive: 3, NewConn: 3, HTTP2: 2, Rate: 60, Timeout: time.Minute})
	slow := a.begin(load.Config{URL: "http://" + a.address + "/slow?n=6&every=50", KeepAlive: 2, NewConn: 1, HTTP2: 1, Rate: 20, Timeout: time.Minute})
	counting := a.countIn(redis)
	m := &mixed{killer: &killer{app: a, rand: rand.New(rand.NewPCG(*seed, 2)), mark: `MARK: "0"`, steps: map[string]int{}}, strategy: strategies[0], did: map[string]int{}}
	for i := range *deploys {
		m.round(i + 1)
	}
	t.Logf("changes: %v; kills: %d", m.did, m.killed)
	a.unharmed(quick)
	a.unharmed(slow)
	counting.exact(t)
	for _, d := range m.downloads {
		d.complete()
	}
	a.settled()
	a.ashlar("log", "verify").ok().says("the record is intact")
}

// mixed makes changes of all kinds.
type mixed struct {
	*killer
	strategy  string         // in ashlar.yaml now
	did       map[string]int // changes by strategy and command
	killed    int
	keepalive int
	downloads []*download
}

// round makes one change, with a server that is killed meanwhile more often than not.
func (m *mixed) round(n int) {
	m.t.Helper()
	next := strategies[m.rand.IntN(len(strategies))]
	m.edit("ashlar.yaml", "strategy: "+m.strategy+" # this round", "strategy: "+next+" # this round")
	m.strategy = next
	if n%20 == 1 {
		m.downloads = append(m.downloads, m.download(30, time.Second))
	}
	args := []string{"deploy", m.env, "--yes"}
	switch m.rand.IntN(4) {
	case 0:
		args = []string{"rollback", m.env, "--yes"}
	case 1:
		old := fmt.Sprintf(`"%d"]`, 300+m.keepalive)
		m.keepalive++
		m.edit("ashlar.yaml", old, fmt.Sprintf(`"%d"]`, 300+m.keepalive))
	default:
		m.next(n)
	}
	m.did[args[0]+" "+strings.Trim(strings.SplitN(next, ":", 2)[0], "{")]++
	talk := m.converse()
	talk.says("v1", fmt.Sprintf("round %d", n))
	change := m.background(args...)
	if m.rand.IntN(3) > 0 {
		m.pause(2 * time.Second)
		m.kill()
		m.killed++
		m.pause(200 * time.Millisecond)
		m.start()
	}
	if r := change(); r.code != 0 && r.code != 3 && r.code != 6 { // 3: nothing to go back to; 6: the server was away
		m.t.Errorf("round %d: %s", n, r)
	}
	m.quiet()
	talk.close()
}

// quiet waits until the rollout has ended, which a download may hold up.
func (m *mixed) quiet() {
	m.t.Helper()
	_ = awaitFor(m.t.Context(), 2*patience, func() error {
		if s := m.status(); s.State.Rollout != nil {
			return errNotYet
		}
		return nil
	})
	m.settled()
}

// complete expects that every line of a download came, whichever release it was from.
func (d *download) complete() {
	d.a.t.Helper()
	<-d.done
	if n := strings.Count(d.body, "\n"); d.err != nil || n != d.n {
		d.a.t.Errorf("a download broke off after %d of %d lines: %v", n, d.n, d.err)
	}
}

// counter adds one to a number in Redis, over and over.
type counter struct {
	asked, answered atomic.Int64
	last            atomic.Int64
	stop            context.CancelFunc
	done            chan struct{}
}

// countIn begins to count. A connection that ends, as it does when Redis is replaced
// and its drain time is over, is followed by another one; a connection that is refused is not excused.
func (a *app) countIn(addr string) *counter {
	a.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &counter{stop: stop, done: make(chan struct{})}
	a.t.Cleanup(func() { stop(); <-c.done })
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			if err := c.connect(ctx, addr); err != nil && ctx.Err() == nil {
				a.t.Errorf("redis: %v", err)
				return
			}
		}
	}()
	return c
}

func (c *counter) connect(ctx context.Context, addr string) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for ctx.Err() == nil {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		c.asked.Add(1)
		if _, err := fmt.Fprint(conn, "INCR count\r\n"); err != nil {
			return nil // it was cut: connect again
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return nil
		}
		var n int64
		if _, err := fmt.Sscanf(line, ":%d", &n); err != nil {
			return fmt.Errorf("answer %q", line)
		}
		if before := c.last.Swap(n); n <= before {
			return fmt.Errorf("the number went from %d to %d: Redis forgot", before, n)
		}
		c.answered.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// exact ends the counting and expects that every answer that came is still counted:
// nothing that Redis acknowledged was lost when it was replaced.
func (c *counter) exact(t *testing.T) {
	t.Helper()
	c.stop()
	<-c.done
	asked, answered, last := c.asked.Load(), c.answered.Load(), c.last.Load()
	t.Logf("redis: %d asked, %d answered, the number is %d", asked, answered, last)
	if answered == 0 || last < answered || last > asked {
		t.Errorf("redis counted %d for %d questions and %d answers", last, asked, answered)
	}
}
