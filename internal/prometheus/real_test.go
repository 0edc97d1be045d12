package prometheus_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/prometheus"
)

// program is a real Prometheus: of the path, or as `make test` unpacks it.
func program(t *testing.T) string {
	for _, name := range []string{"prometheus", "../../bin/prometheus"} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	t.Fatal("no prometheus here: scripts/unpack prometheus usr/bin/prometheus bin/prometheus")
	return ""
}

// TestRealPrometheus scrapes a program, and asks for what it counts.
func TestRealPrometheus(t *testing.T) {
	binary := program(t)
	var requests atomic.Int64
	requests.Store(7)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE requests_total counter\nrequests_total{release=\"a\"} %d\nrequests_total{release=\"b\"} 3\n", requests.Load())
	}))
	defer app.Close()
	base := start(t, binary, strings.TrimPrefix(app.URL, "http://"))
	ask := func(expr string) string {
		value, found, err := prometheus.Query(t.Context(), base, expr, nil)
		if err != nil {
			return string(fault.Of(err).Kind)
		}
		return fmt.Sprint(value, " ", found)
	}
	look, deadline := time.NewTicker(50*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for ask(`requests_total{release="a"}`) != "7 true" {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("never scraped: %s", ask(`requests_total{release="a"}`))
		}
	}
	for expr, want := range map[string]string{
		`sum(requests_total)`: "10 true", `scalar(requests_total{release="b"})`: "3 true", `requests_total{release="c"}`: "0 false",
		`requests_total`: "invalid", `sum(`: "invalid", `requests_total[1m]`: "invalid", `"text"`: "invalid",
		`requests_total{release="a"} / 0`: "+Inf true", `vector(0) / 0`: "NaN true", `time() > bool 0`: "1 true",
	} {
		if got := ask(expr); got != want {
			t.Errorf("%s is %s, want %s", expr, got, want)
		}
	}
}

// start runs Prometheus until the test ends, and gives its address.
func start(t *testing.T, binary, target string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := "scrape_configs:\n- job_name: app\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  static_configs:\n  - targets: [" + target + "]\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself, which Wait and the log tell
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", output.String())
		}
	})
	return "http://" + address
}
