package router

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

const (
	maxTableBytes = 16 << 20
	maxSocketPath = 107 // unix(7): sun_path holds 108 bytes with its final zero
)

// Health is what a router says of itself.
type Health struct {
	Version      string    `json:"version,omitempty"`
	PID          int       `json:"pid"`
	Before       []int     `json:"before,omitempty"` // processes of routers that this one took over from and that still have connections
	StartedAt    time.Time `json:"startedAt"`
	Environments int       `json:"environments"`
	Active       int64     `json:"active"` // requests under way, waiting ones included
	Held         int64     `json:"held"`   // requests waiting for a backend
}

// control is the API on the unix socket. Errors are a fault.Error as JSON.
func (r *router) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/environments/{app}/{env}", r.putTable)
	mux.HandleFunc("GET /v1/environments/{app}/{env}", func(w http.ResponseWriter, req *http.Request) {
		s, _ := r.status(keyOf(req))
		answer(w, http.StatusOK, s)
	})
	mux.HandleFunc("GET /v1/environments", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, r.all()) })
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, r.health()) })
	mux.HandleFunc("GET /metrics", r.metrics)
	mux.HandleFunc("POST /v1/handover", r.handOver)
	return mux
}

func (r *router) putTable(w http.ResponseWriter, req *http.Request) {
	table, text, err := readTable(w, req)
	if err == nil {
		err = r.apply(req.Context(), keyOf(req), table, text)
	}
	if err != nil {
		f := fault.Of(err)
		r.log.Warn("table refused", "app", req.PathValue("app"), "env", req.PathValue("env"), "err", f)
		answer(w, f.Kind.HTTPStatus(), f)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func keyOf(req *http.Request) rollout.Key {
	return rollout.Key{App: req.PathValue("app"), Env: req.PathValue("env")}
}

func (r *router) all() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before.refresh()
	out := []Status{}
	for key, env := range r.envs {
		s := r.describe(key, env)
		r.before.add(&s)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (r *router) health() Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before.refresh()
	return Health{Version: r.version, PID: os.Getpid(), Before: r.before.processes(), StartedAt: r.started, Environments: len(r.envs), Active: r.active.Load(), Held: r.held.Load()}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client went away
}

// listenControl opens the control socket for its owner only. It is made inside a
// private directory and moved into place, so nobody can connect before its mode
// is set, and the socket of a killed router is replaced. The caller holds the lock.
func listenControl(runDir string) (net.Listener, error) {
	path := socketPath(runDir)
	if len(path) > maxSocketPath {
		return nil, fault.New(fault.Invalid, "the path of the router's socket has %d characters, at most %d are possible", len(path), maxSocketPath).
			At(path).Mend("use a state directory with a shorter path (--dir)")
	}
	private := filepath.Join(runDir, ".rs")
	err := errors.Join(os.RemoveAll(private), os.Mkdir(private, 0o700))
	defer os.RemoveAll(private) //nolint:errcheck // it is empty by then
	var l *net.UnixListener
	if err == nil {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(private, "s"), Net: "unix"})
	}
	if err == nil {
		l.SetUnlinkOnClose(false)
		err = errors.Join(os.Chmod(filepath.Join(private, "s"), 0o600), os.Rename(filepath.Join(private, "s"), path))
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot open the router's socket: %w", err).At(path)
	}
	return l, nil
}
