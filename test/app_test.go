package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// app is an application's source directory, and the environment of it that is
// looked at.
type app struct {
	*host
	dir       string
	name, env string
	address   string // where its requests arrive
}

const guestYAML = `app: demo
components:
  web:
    build:
      - go: {package: ./cmd/guest, ldflags: ["-s", "-w"]}
    run:
      command: [/usr/bin/web, serves]
      port: 8080
      env: {MARK: "0"}
      health: {http: /healthz, interval: 200ms, start: 10s}
      resources: {memory: 128MiB, pids: 64}
      stop: {grace: 2s}
      drain: 20s
      tmpfs: {/tmp: 16MiB}
    route: {path: /}
environments:
  production:
    listen: ADDRESS
    replicas: 2
`

// guest makes an application of the suite's own program.
func (h *host) guest() *app {
	h.t.Helper()
	a := &app{host: h, dir: h.t.TempDir(), name: "demo", env: "production", address: freeAddress(h.t)}
	if err := os.CopyFS(filepath.Join(a.dir, "cmd/guest"), os.DirFS("testdata/guest")); err != nil {
		h.t.Fatal(err)
	}
	a.write("go.mod", "module guest\n\ngo 1.26\n")
	a.write("ashlar.yaml", strings.ReplaceAll(guestYAML, "ADDRESS", a.address))
	return a
}

// example makes an application of one of the repository's examples, on an address of its own.
func (h *host) example(name string) *app {
	h.t.Helper()
	a := &app{host: h, dir: h.t.TempDir(), name: name, env: "production", address: freeAddress(h.t)}
	if err := os.CopyFS(a.dir, os.DirFS(filepath.Join("../examples", name))); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(a.dir, "ashlar.lock")); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(a.dir, "cmd")); err == nil {
		a.write("go.mod", "module example\n\ngo 1.26\n") // in the repository it is a part of ours
	}
	a.edit("ashlar.yaml", "production:\n    listen: "+a.listens(), "production:\n    listen: "+a.address)
	return a
}

// listens is where the definition has production listen.
func (a *app) listens() string {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, "ashlar.yaml"))
	if err != nil {
		a.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "production:\n    listen: ")
	address, _, ok := strings.Cut(rest, "\n")
	if !ok {
		a.t.Fatalf("production listens nowhere:\n%s", b)
	}
	return address
}

func (a *app) write(name, content string) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// edit replaces what occurs once in a file.
func (a *app) edit(name, old, new string) {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		a.t.Fatalf("%s has %q %d times", name, old, n)
	}
	a.write(name, strings.Replace(string(b), old, new, 1))
}

// result is how a command ended.
type result struct {
	a              *app
	args           string
	code           int
	stdout, stderr string
	took           time.Duration
}

// ashlar runs a command in the application's directory.
func (a *app) ashlar(args ...string) result {
	a.t.Helper()
	return a.background(args...)()
}

// background starts a command; the function that it gives waits for its end.
func (a *app) background(args ...string) func() result {
	a.t.Helper()
	return a.run(exec.Command(filepath.Join(bin, "ashlar"), args...))
}

func (a *app) run(cmd *exec.Cmd) func() result {
	a.t.Helper()
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), cmd.Env...)
	cmd.Env = append(cmd.Env, "ASHLAR_DIR="+a.host.dir)
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	limit := time.AfterFunc(4*patience, func() { _ = cmd.Process.Kill() })
	return func() result {
		err := cmd.Wait()
		limit.Stop()
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			a.t.Errorf("%s: %v", cmd, err)
		}
		return result{a, strings.Join(cmd.Args[1:], " "), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(begun)}
	}
}

func (r result) String() string {
	return fmt.Sprintf("ashlar %s: exit status %d\n%s%s", r.args, r.code, r.stdout, r.stderr)
}

// ok expects success.
func (r result) ok() result {
	r.a.t.Helper()
	if r.code != 0 {
		r.a.t.Fatal(r)
	}
	return r
}

// failed expects an exit status and words on standard error.
func (r result) failed(code int, words ...string) result {
	r.a.t.Helper()
	if r.code != code {
		r.a.t.Errorf("exit status %d is expected: %s", code, r)
	}
	return r.shows(r.stderr, words...)
}

// says expects words on standard output.
func (r result) says(words ...string) result {
	r.a.t.Helper()
	return r.shows(r.stdout, words...)
}

func (r result) shows(where string, words ...string) result {
	r.a.t.Helper()
	for _, w := range words {
		if !strings.Contains(where, w) {
			r.a.t.Errorf("%q is expected: %s", w, r)
		}
	}
	return r
}

// into decodes JSON on standard output.
func (r result) into(v any) {
	r.a.t.Helper()
	r.ok()
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		r.a.t.Fatalf("%v: %s", err, r)
	}
}

func (a *app) deploy() result {
	a.t.Helper()
	return a.ashlar("deploy", a.env, "--yes").ok()
}

func (a *app) status() api.Status {
	a.t.Helper()
	s, err := a.client.Status(a.t.Context(), a.name, a.env)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

// settled waits until no rollout is in flight and what is observed is what was ordered.
func (a *app) settled() api.Status {
	a.t.Helper()
	var s api.Status
	a.await("the environment to settle", func() error {
		s = a.status()
		switch {
		case s.State.Rollout != nil:
			return fmt.Errorf("rollout %d is at %s, waiting for %v", s.State.Rollout.Number, s.State.Rollout.Step, s.Waiting)
		case len(s.State.Instances) != len(s.Instances):
			return fmt.Errorf("%d instances are ordered, %d observed", len(s.State.Instances), len(s.Instances))
		}
		for _, in := range s.Instances {
			if in.Phase != "ready" {
				return fmt.Errorf("%s is %s", in.ID, in.Phase)
			}
		}
		return nil
	})
	return s
}

// get asks for a path once, on a new connection.
func (a *app) get(path string) string {
	a.t.Helper()
	body, err := a.ask(path)
	if err != nil {
		a.t.Error(err)
	}
	return body
}

func (a *app) ask(path string) (string, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return string(b), err
}

// load begins to ask in all three ways, at a rate that leaves the machine room. The
// answers are told apart by a header.
func (a *app) load(rate int, marker string) *load.Run {
	a.t.Helper()
	return a.begin(load.Config{URL: "http://" + a.address + "/", KeepAlive: 3, NewConn: 3, HTTP2: 2, Rate: rate, MarkerHeader: marker})
}

func (a *app) begin(c load.Config) *load.Run {
	a.t.Helper()
	c.For = load.MaxFor
	run, err := load.Start(context.Background(), c)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { run.Stop() })
	return run
}

// unharmed ends a load and expects that every request was answered.
func (a *app) unharmed(run *load.Run) load.Report {
	a.t.Helper()
	r := run.Stop()
	a.t.Logf("%d requests in %s, %d failed, slowest %s", r.Requests, r.Took.Round(time.Millisecond), r.Failed, r.Max.Round(time.Millisecond))
	if r.Failed > 0 || r.Requests == 0 {
		a.t.Errorf("%d of %d requests failed, the first:\n%s", r.Failed, r.Requests, strings.Join(r.FirstErrors, "\n"))
	}
	return r
}

// entries are the record from an index on.
func (a *app) entries(from int64) []record.Entry {
	a.t.Helper()
	var out []record.Entry
	err := a.client.Entries(a.t.Context(), api.EntriesQuery{From: from, To: -1}, func(e record.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// pids are the processes of an instance, the oldest first.
func (a *app) pids(instance string) []int {
	var out []int
	for pid := range a.processes() {
		groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may end meanwhile
		if slices.ContainsFunc(lines(string(groups)), func(l string) bool { return strings.HasSuffix(l, "/"+instance) }) {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// ids are the instances that are observed, sorted.
func ids(s api.Status) []string {
	var out []string
	for _, in := range s.Instances {
		out = append(out, in.ID)
	}
	slices.Sort(out)
	return out
}
