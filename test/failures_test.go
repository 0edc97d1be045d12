package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every way in which a new release can fail leaves the one before serving, says
// what happened and leaves nothing behind.
func TestFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name     string
		old, new string // in ashlar.yaml
		words    []string
		atLeast  time.Duration // that it takes
		build    bool          // it is found before anything is deployed
	}{
		{
			name: "exits at once", old: "serves]", new: "exits]",
			words: []string{"exited with status 3", "  | cannot open the database"},
		},
		{
			name: "never healthy", old: "serves]", new: "sick]", atLeast: time.Second,
			words: []string{"did not become ready within 1s", "/healthz: answered 503 Service Unavailable: no database yet", "| waiting for the database"},
		},
		{
			name: "its health check streams for ever", old: "http: /healthz, interval", new: `http: "/slow?n=1000000&every=10", timeout: 300ms, interval`, atLeast: time.Second,
			words: []string{"did not become ready within 1s", "answered 200 OK, but its body did not end"},
		},
		{
			name: "ignores SIGTERM", old: "serves]", new: "stubborn]", atLeast: 1500 * time.Millisecond,
			words: []string{"did not become ready within 1s"},
		},
		{
			name: "forks and leaks", old: "serves]", new: "leaks]",
			words: []string{"did not become ready within 1s"},
		},
		{
			name: "no such program", old: "/usr/bin/web, serves", new: "/usr/bin/nothing, serves", build: true,
			words: []string{"there is no program /usr/bin/nothing in the artifact", "command:"},
		},
		{
			name: "not a program", old: "/usr/bin/web, serves", new: "/usr/bin/broken, serves",
			words: []string{"exited with status 255", "exec /usr/bin/broken: no such file or directory"},
		},
		{
			name: "too much memory", old: "serves]", new: "eats]",
			words: []string{"used more memory than its limit"},
		},
		{
			name: "address taken", old: "listen: ADDRESS", new: "listen: " + taken.Addr().String(),
			words: []string{"the router refused the routes", taken.Addr().String(), "in use"},
		},
	}
	a := newHost(t).guest()
	a.write("broken", "#!/usr/bin/nothing\n")
	a.edit("ashlar.yaml", "    run:\n", "      - files: {from: broken, to: /usr/bin/broken, mode: \"0755\"}\n    run:\n")
	a.edit("ashlar.yaml", "start: 10s", "start: 1s")
	a.edit("ashlar.yaml", "grace: 2s", "grace: 500ms")
	a.edit("ashlar.yaml", "memory: 128MiB", "memory: 48MiB")
	a.deploy()
	instances, traces := ids(a.settled()), a.usedTraces().words()
	run := a.load(100, "Mark")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old, next := strings.ReplaceAll(tt.old, "ADDRESS", a.address), tt.new
			a := a.within(t)
			a.edit("ashlar.yaml", old, next)
			r := a.ashlar("deploy", "production", "--yes")
			if tt.build {
				r.failed(2, tt.words...)
			} else {
				r.failed(5, append(tt.words, "was put back", "release 1 serves in production, as before")...)
			}
			a.edit("ashlar.yaml", next, old)
			if r.took < tt.atLeast {
				t.Errorf("it took only %s: %s", r.took, r)
			}
			s := a.settled()
			if now := ids(s); !slices.Equal(now, instances) || s.State.Current.Number != 1 {
				t.Errorf("%v of release %d run, before %v of release 1", now, s.State.Current.Number, instances)
			}
			a.await("what failed to be gone", func() error {
				if d := cmp.Diff(traces, a.usedTraces().words()); d != "" {
					return diffError(d)
				}
				return nil
			})
		})
	}
	a.unharmed(run)
	a.ashlar("log", "verify").ok()
	a.ashlar("deploy", "production", "--yes").ok().says("nothing to change")
}

// within lets a part of a test look at the application.
func (a *app) within(t *testing.T) *app {
	h, b := *a.host, *a
	h.t, b.host = t, &h
	return &b
}

type diffError string

func (d diffError) Error() string { return "-before +now:\n" + string(d) }

// A first release whose address is taken leaves nothing running, and can be
// deployed once it is free.
func TestAddressInUse(t *testing.T) {
	a := newHost(t).guest()
	taken, err := net.Listen("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	a.ashlar("deploy", "production", "--yes").failed(5, "address "+a.address+" is in use", "nothing is live in production")
	if x := a.traces(); len(x.processes) != 1 || len(x.spaces) != 0 || len(a.directories()) != 0 || len(linksOf(x.bridge)) > 1 {
		t.Errorf("more than the router, and its bridge, is there: %v", x.words())
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	a.deploy()
	a.oneRelease("0")
}
