package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/router"
)

// How the proxies are measured.
const (
	proxyRounds  = 3
	proxyFor     = 3 * time.Second // of each of the two loads
	proxyRate    = 500             // requests per second at which latency is taken
	proxyConns   = 16
	proxyPage    = 612 // bytes, an index page
	proxySwitch  = 50  // switches of each size
	proxyStarted = 10 * time.Second
)

// proxy is one way to the same program.
type proxy struct {
	name string
	url  string
	skip string // why it was not measured

	perSecond, p50, p99 []float64 // of each round; ms
}

// proxies compares the router with other proxies and with no proxy, all in one run
// before the same program on this machine; and it times the switch of backends.
type proxies struct {
	dir, ashlar, backend string
	all                  []*proxy
	switches             []stat
	started              []*exec.Cmd
}

var proxyEnv = rollout.Key{App: "bench", Env: "proxies"}

func measureProxies(ctx context.Context, o options, dir string, say func(string, ...any)) (p *proxies, err error) {
	p = &proxies{dir: dir, ashlar: o.ashlar}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	page := strings.Repeat("x", proxyPage)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })}
	go server.Serve(socket) //nolint:errcheck // it ends with the measuring
	defer func() { err = errors.Join(err, server.Close()) }()
	p.backend = socket.Addr().String()
	p.all = []*proxy{{name: "direct", url: "http://" + p.backend + "/"}}
	defer p.end()
	client, err := p.startRouter(ctx)
	if err != nil {
		return nil, err
	}
	for _, start := range []func(context.Context) error{p.startHAProxy, p.startNginx} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	for round := range proxyRounds {
		for i := range p.all {
			one := p.all[(i+round)%len(p.all)] // so that each is first once
			if one.skip != "" {
				continue
			}
			say("proxies, round %d of %d: %s", round+1, proxyRounds, one.name)
			if err := one.measure(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", one.name, err)
			}
		}
	}
	return p, p.timeSwitches(ctx, client)
}

// measure asks as fast as it goes with wrk, then at a fixed rate.
func (p *proxy) measure(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(proxyConns), "-d", proxyFor.String(), p.url).CombinedOutput()
	if err != nil {
		return fmt.Errorf("wrk: %w: %s", err, out)
	}
	found := regexp.MustCompile(`Requests/sec: +([0-9.]+)`).FindSubmatch(out)
	if found == nil || regexp.MustCompile(`Non-2xx|Socket errors`).Match(out) {
		return fmt.Errorf("wrk says: %s", out)
	}
	perSecond, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return err
	}
	run, err := load.Start(ctx, load.Config{URL: p.url, KeepAlive: 8, Rate: proxyRate, For: proxyFor})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(proxyFor):
	}
	report := run.Stop()
	if report.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %v", report.Failed, report.Requests, report.FirstErrors)
	}
	p.perSecond, p.p50, p.p99 = append(p.perSecond, perSecond), append(p.p50, ms(report.P50)), append(p.p99, ms(report.P99))
	return ctx.Err()
}

// startRouter starts the router with its run directory in memory, as /run is.
func (p *proxies) startRouter(ctx context.Context) (*router.Client, error) {
	run, err := os.MkdirTemp("/run", "ashlar-bench-")
	if err != nil {
		return nil, err
	}
	p.all = append(p.all, &proxy{name: "ashlar router"})
	if err := p.start(ctx, p.ashlar, "router", "--run", run); err != nil {
		return nil, err
	}
	addr, err := load.FreeAddr()
	if err != nil {
		return nil, err
	}
	p.all[1].url = "http://" + addr + "/"
	client := router.Dial(run)
	return client, until(func() error {
		return client.Apply(ctx, proxyEnv, rollout.Table{Generation: 1, Listen: addr, Services: []rollout.Service{{
			Name: "web", Path: "/", Backends: []rollout.Backend{{ID: "a", Address: p.backend, Weight: 1}},
		}}})
	})
}

func (p *proxies) startHAProxy(ctx context.Context) error {
	return p.startPeer(ctx, "haproxy", "-db -f", `global
  nbthread 2
defaults
  mode http
  http-reuse always
  timeout connect 1s
  timeout client 30s
  timeout server 30s
frontend in
  bind ADDRESS
  default_backend out
backend out
  server a BACKEND
`)
}

func (p *proxies) startNginx(ctx context.Context) error {
	return p.startPeer(ctx, "nginx", "-p DIR -c", `daemon off;
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/nginx.log crit;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path DIR/nginx-body;
  proxy_temp_path DIR/nginx-proxy;
  upstream out { server BACKEND; keepalive 128; }
  server {
    listen ADDRESS;
    location / { proxy_pass http://out; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`)
}

// startPeer starts another proxy of Debian's, if it is installed.
func (p *proxies) startPeer(ctx context.Context, name, args, config string) error {
	one := &proxy{name: name}
	p.all = append(p.all, one)
	path, err := exec.LookPath(filepath.Join(filepath.Dir(p.ashlar), name))
	if err != nil {
		path, err = exec.LookPath(name)
	}
	if err != nil {
		one.skip = "not here: make bench unpacks it"
		return nil //nolint:nilerr // it is there to be compared with, no more
	}
	addr, err := load.FreeAddr()
	if err != nil {
		return err
	}
	one.url = "http://" + addr + "/"
	fill := strings.NewReplacer("ADDRESS", addr, "BACKEND", p.backend, "DIR", p.dir)
	file := filepath.Join(p.dir, name+".conf")
	if err := os.WriteFile(file, []byte(fill.Replace(config)), 0o600); err != nil {
		return err
	}
	if err := p.start(ctx, path, append(strings.Fields(fill.Replace(args)), file)...); err != nil {
		return err
	}
	return until(func() error {
		resp, err := http.Get(one.url)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

func (p *proxies) start(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.started = append(p.started, cmd)
	return cmd.Start()
}

// end ends what was started, and takes away the router's directory.
func (p *proxies) end() {
	for _, cmd := range p.started {
		if cmd.Process == nil {
			continue
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was ended
		if i := slices.Index(cmd.Args, "--run"); i > 0 {
			_ = os.RemoveAll(cmd.Args[i+1])
		}
	}
}

// until asks again until it works.
func until(what func() error) error {
	for end := time.Now().Add(proxyStarted); ; time.Sleep(10 * time.Millisecond) {
		if err := what(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// timeSwitches replaces all backends of a table by others: sent to the router's
// socket, checked, saved, in force, acknowledged.
func (p *proxies) timeSwitches(ctx context.Context, client *router.Client) error {
	key := rollout.Key{App: "bench", Env: "switch"}
	addr, err := load.FreeAddr()
	if err != nil {
		return err
	}
	generation := int64(0)
	for _, n := range []int{1, 100, 1000} {
		var took []float64
		for range proxySwitch {
			generation++
			table := rollout.Table{Generation: generation, Listen: addr, Services: []rollout.Service{{Name: "web", Path: "/"}}}
			for i := range n {
				table.Services[0].Backends = append(table.Services[0].Backends, rollout.Backend{
					ID: fmt.Sprintf("i%d-%04d", generation%2, i), Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1), Weight: 1, Release: "r",
				})
			}
			began := time.Now()
			if err := client.Apply(ctx, key, table); err != nil {
				return err
			}
			took = append(took, ms(time.Since(began)))
		}
		p.switches = append(p.switches, summarize(fmt.Sprintf("router: a switch of %d backends, acknowledged", n), "ms", took))
	}
	return nil
}

// print writes the comparison.
func (p *proxies) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nproxies: %d kept-alive connections, %d bytes (medians of %d rounds)\trequests/s\tof direct\tp50 at %d/s\tp99 at %d/s\n",
		proxyConns, proxyPage, proxyRounds, proxyRate, proxyRate)
	direct := summarize("", "", p.all[0].perSecond).Median
	for _, one := range p.all {
		if one.skip != "" {
			fmt.Fprintf(t, "%s\t%s\n", one.name, one.skip)
			continue
		}
		perSecond := summarize("", "", one.perSecond).Median
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%s\t%s\n", one.name, perSecond, perSecond/direct,
			number(summarize("", "", one.p50).Median, "ms"), number(summarize("", "", one.p99).Median, "ms"))
	}
	table(t, "switches", p.switches)
	return t.Flush()
}

// printProxies measures and writes the comparison, with the load that there was.
func (r *report) printProxies(ctx context.Context, o options, dir string, w io.Writer, say func(string, ...any)) error {
	before := first("/proc/loadavg")
	p, err := measureProxies(ctx, o, dir, say)
	if err != nil {
		return err
	}
	if o.only != "" {
		r.head(w)
	}
	fmt.Fprintf(w, "load average before the proxies %s; after %s\n", before, first("/proc/loadavg"))
	if err := p.print(w); err != nil {
		return err
	}
	return printKernel(ctx, w, say)
}
