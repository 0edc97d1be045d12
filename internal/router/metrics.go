package router

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// The metrics are written by hand in Prometheus' text format (0.0.4,
// https://prometheus.io/docs/instrumenting/exposition_formats/): they are read from
// the same Status that the engine sees, and the format is a few lines.

// metric is one family of samples.
type metric struct{ name, kind, help string }

var (
	metricRequests   = metric{"ashlar_router_requests_total", "counter", "Answers of the instances of a release, by class of status."}
	metricErrors     = metric{"ashlar_router_errors_total", "counter", "Answers 5xx, and answers that were broken off or never given."}
	metricDuration   = metric{"ashlar_router_request_duration_seconds", "histogram", "Time to the header of an answer."}
	metricInFlight   = metric{"ashlar_router_in_flight", "gauge", "What is under way at an instance, by kind; leaving instances included."}
	metricCut        = metric{"ashlar_router_cut_total", "counter", "What was cut at the end of its drain time, by kind."}
	metricFailed     = metric{"ashlar_router_failed_total", "counter", "Requests that got no whole answer: 502 or 503 of the router, or broken off."}
	metricRetried    = metric{"ashlar_router_retried_total", "counter", "Requests sent to another instance after a failure."}
	metricHeld       = metric{"ashlar_router_held_total", "counter", "Requests that had to wait for an instance."}
	metricGone       = metric{"ashlar_router_gone_total", "counter", "Requests given up by their client."}
	metricGeneration = metric{"ashlar_router_table_generation", "gauge", "Generation of the routes in force."}
)

// writeMetrics writes the samples of all environments, which are sorted.
func writeMetrics(out io.Writer, all []Status) error {
	w := &metricWriter{w: bufio.NewWriter(out)}
	w.family(metricRequests)
	for _, s := range all {
		for _, rel := range s.Releases {
			for i, n := range rel.Status {
				w.sample(metricRequests.name, float64(n), append(labelsOf(s, rel), "code", strconv.Itoa(i+1)+"xx")...)
			}
		}
	}
	w.family(metricErrors)
	for _, s := range all {
		for _, rel := range s.Releases {
			w.sample(metricErrors.name, float64(s.Traffic[rollout.TrafficKey(rel.Service, rel.Release)].Errors), labelsOf(s, rel)...)
		}
	}
	w.family(metricDuration)
	for _, s := range all {
		for _, rel := range s.Releases {
			w.histogram(rel, s.Traffic[rollout.TrafficKey(rel.Service, rel.Release)].Latency, labelsOf(s, rel))
		}
	}
	w.flights(all)
	w.services(all)
	w.family(metricGeneration)
	for _, s := range all {
		w.sample(metricGeneration.name, float64(s.Generation), "app", s.App, "env", s.Env)
	}
	return errors.Join(w.err, w.w.Flush())
}

func labelsOf(s Status, rel ReleaseStatus) []string {
	return []string{"app", s.App, "env", s.Env, "service", rel.Service, "release", rel.Release}
}

// metricWriter keeps the first error.
type metricWriter struct {
	w   *bufio.Writer
	err error
}

func (w *metricWriter) text(parts ...string) {
	for _, p := range parts {
		if _, err := w.w.WriteString(p); err != nil && w.err == nil {
			w.err = err
		}
	}
}

func (w *metricWriter) family(m metric) {
	w.text("# HELP ", m.name, " ", m.help, "\n# TYPE ", m.name, " ", m.kind, "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes one value with its labels, given as names and values in turn.
func (w *metricWriter) sample(name string, value float64, labels ...string) {
	w.text(name)
	for i := 0; i < len(labels); i += 2 {
		w.text(map[bool]string{true: "{", false: ","}[i == 0], labels[i], `="`, labelEscapes.Replace(labels[i+1]), `"`)
	}
	w.text("} ", strconv.FormatFloat(value, 'g', -1, 64), "\n")
}

func (w *metricWriter) histogram(rel ReleaseStatus, latency []int64, labels []string) {
	var upTo int64
	for i, n := range latency {
		le := "+Inf"
		if i < len(rollout.LatencyBounds) {
			le = strconv.FormatFloat(rollout.LatencyBounds[i].Seconds(), 'g', -1, 64)
		}
		upTo += n
		w.sample(metricDuration.name+"_bucket", float64(upTo), append(labels, "le", le)...)
	}
	w.sample(metricDuration.name+"_sum", rel.Took.Seconds(), labels...)
	w.sample(metricDuration.name+"_count", float64(upTo), labels...)
}

func (w *metricWriter) flights(all []Status) {
	w.family(metricInFlight)
	for _, s := range all {
		for _, id := range slices.Sorted(maps.Keys(s.InFlight)) {
			for k, n := range byKind(s.Kinds[id]) {
				w.sample(metricInFlight.name, float64(n), "app", s.App, "env", s.Env, "instance", id, "kind", kindNames[k])
			}
		}
	}
	w.family(metricCut)
	for _, s := range all {
		for k, n := range byKind(s.CutTotal) {
			w.sample(metricCut.name, float64(n), "app", s.App, "env", s.Env, "kind", kindNames[k])
		}
	}
}

func byKind(f rollout.Flight) [kinds]int {
	return [kinds]int{plain: f.Requests, webSocket: f.WebSockets, stream: f.Streams, grpc: f.GRPC}
}

func (w *metricWriter) services(all []Status) {
	for _, m := range []struct {
		metric
		of func(ServiceStatus) int64
	}{
		{metricFailed, func(s ServiceStatus) int64 { return s.Failed }}, {metricRetried, func(s ServiceStatus) int64 { return s.Retried }},
		{metricHeld, func(s ServiceStatus) int64 { return s.Held }}, {metricGone, func(s ServiceStatus) int64 { return s.Gone }},
	} {
		w.family(m.metric)
		for _, s := range all {
			for _, svc := range s.Services {
				w.sample(m.name, float64(m.of(svc)), "app", s.App, "env", s.Env, "service", svc.Name)
			}
		}
	}
}

// metrics answers a scrape.
func (r *router) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeMetrics(w, r.all()) //nolint:errcheck // the scraper went away
}

// checkMetrics wants an address of this machine alone: what is served there tells
// about every application.
func checkMetrics(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); addr != "" && (err != nil || (host != "localhost" && (ip == nil || !ip.IsLoopback()))) {
		return fault.New(fault.Invalid, "metrics address %q is not a loopback address with a port", addr).Mend("write for example 127.0.0.1:9464")
	}
	return nil
}

// serveMetrics opens the address for scrapes.
func (r *router) serveMetrics(ctx context.Context, addr string) error {
	if addr == "" {
		return nil
	}
	var lc net.ListenConfig
	socket, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fault.New(fault.Unavailable, "cannot listen for metrics: %w", err).At(addr).Mend("choose another address, or find the program that has it with  ss -ltnp")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", r.metrics)
	r.scrapes = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, ErrorLog: debugLog(r.log)}
	go r.scrapes.Serve(socket) //nolint:errcheck // it ends with ErrServerClosed
	return nil
}
