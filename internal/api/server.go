package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Config is what a Server stands on. Every function may be called concurrently.
type Config struct {
	Engine *engine.Engine // over Store
	Store  Store
	Log    *slog.Logger
	Now    func() time.Time
	Host   string // named in actors: user@Host

	// Ahead is told that a deploy may follow: when one is being built (rel is nil), and
	// with what was built when its plan is asked for. Nothing may depend on it. It
	// returns at once.
	Ahead func(key engine.Key, rel *release.Release)
	// Hold keeps garbage collection away until its result is called.
	Hold func(ctx context.Context) (release func(), err error)
	// VerifyLog recomputes the record's Merkle tree from its entries.
	VerifyLog func(ctx context.Context) (record.Report, error)
	// Notary speaks for the record to the outside.
	Notary Notary
	// AppendStatements records the leaves of signed statements, one after another, and an
	// entry that tells of them. It gives the index of the first.
	AppendStatements func(ctx context.Context, leaves [][]byte, e record.Entry) (int64, error)
	// Policies keeps the policies of environments, and Admission judges by them.
	Policies  PolicyStore
	Admission Admission
	// Trust is the trust root.
	Trust TrustRoot
	// Deployer names the key with which the server signs what its policies verified;
	// empty: it has none.
	Deployer func() (trust.KeyID, error)
	// Output sends lines to emit until there are no more or, following, ctx ends.
	Output func(ctx context.Context, q OutputQuery, emit func(OutputLine) error) error
	// GC removes what no release needs.
	GC func(ctx context.Context, actor string, q GCRequest) (GCReport, error)
	// Secrets keeps the secrets of environments.
	Secrets Secrets
	// Doctor checks what the server can and cannot do here.
	Doctor func(ctx context.Context) []Check
	// Troubles tells what is the matter with an environment besides its rollouts; may be nil.
	Troubles func(key engine.Key) []string
	// Version describes the server.
	Version func() Version
	// End makes the server end after the answer is sent.
	End func(actor string, q EndRequest)
}

// Server answers the API.
type Server struct{ Config }

// NewServer makes a server; nothing listens yet.
func NewServer(c Config) *Server { return &Server{c} }

// Limits of request bodies, in bytes.
const (
	maxDocument = release.MaxSize
	maxRequest  = 1<<20 + 2*release.MaxSize // a plan carries a document as a JSON string
)

// Handler routes every endpoint.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/releases", answer(s.addRelease))
	mux.Handle("GET /v1/release", answer(s.release))
	mux.Handle("POST /v1/ahead", answer(s.ahead))
	mux.Handle("POST /v1/plan", answer(s.plan))
	mux.Handle("POST /v1/deploy", answer(s.deploy))
	mux.Handle("POST /v1/rollback", answer(s.rollback))
	mux.Handle("POST /v1/down", answer(s.down))
	mux.Handle("POST /v1/rollout", answer(s.control))
	mux.Handle("GET /v1/rollout", answer(s.inFlight))
	mux.Handle("GET /v1/why", answer(s.why))
	mux.Handle("GET /v1/quarantine", answer(s.quarantine))
	mux.Handle("POST /v1/rollout/withdraw", answer(s.withdraw))
	mux.Handle("POST /v1/quarantine/lift", answer(s.lift))
	mux.Handle("GET /v1/environments", answer(s.environments))
	mux.Handle("GET /v1/status", answer(s.status))
	mux.Handle("GET /v1/history", answer(s.history))
	mux.Handle("GET /v1/entries", stream(s.entries))
	mux.Handle("GET /v1/log/verify", answer(s.verifyLog))
	mux.Handle("GET /v1/log/checkpoint", answer(s.checkpoint))
	mux.Handle("GET /v1/log/prove", answer(s.prove))
	mux.Handle("POST /v1/log/proofs", answer(s.proveAll))
	mux.Handle("GET /v1/log/consistency", answer(s.consistency))
	mux.Handle("POST /v1/log/statements", answer(s.logStatements))
	mux.Handle("POST /v1/policy", answer(s.setPolicy))
	mux.Handle("GET /v1/policy", answer(s.policy))
	mux.Handle("POST /v1/policy/test", answer(s.testPolicy))
	mux.Handle("POST /v1/policy/database", answer(s.setDatabase))
	mux.Handle("GET /v1/trust", answer(s.trust))
	mux.Handle("POST /v1/trust", answer(s.installTrust))
	mux.Handle(logPath, http.StripPrefix(strings.TrimSuffix(logPath, "/"), s.Notary.Handler()))
	mux.Handle("GET /v1/output", stream(s.output))
	mux.Handle("POST /v1/gc", answer(s.gc))
	mux.Handle("POST /v1/secrets", answer(s.setSecret))
	mux.Handle("GET /v1/secrets", answer(s.secrets))
	mux.Handle("POST /v1/secrets/remove", answer(s.removeSecret))
	mux.Handle("GET /v1/doctor", answer(s.doctor))
	mux.Handle("GET /v1/version", answer(s.version))
	mux.Handle("POST /v1/end", answer(s.end))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeFault(w, fault.New(fault.NotFound, "the server has no %s %s", r.Method, r.URL.Path).Mend("use an ashlar of the server's version"))
	})
	return mux
}

// Serve answers on the socket until ctx ends, then lets short requests finish.
// Streams end at once: whoever follows one sees it break off and can come back.
func (s *Server) Serve(ctx context.Context, socket net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       s.withPeer,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(cancel)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(socket) }()
	select {
	case err := <-ended:
		return fault.New(fault.Unavailable, "the server's socket failed: %w", err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := srv.Shutdown(grace); err != nil {
		return srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxSocketPath is the longest path of a unix socket: sun_path of unix(7) holds
// 108 bytes with the final zero.
const maxSocketPath = 107

// SocketPath is where the server of a run directory listens.
func SocketPath(runDir string) string { return filepath.Join(runDir, "ashlar.sock") }

// Listen opens the socket for its owner only, in place of a dead server's. The
// caller has made sure that no other server lives.
func Listen(runDir string) (net.Listener, error) {
	path := SocketPath(runDir)
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	// Made in a private directory and moved into place: nobody can connect before its mode is set.
	private := filepath.Join(runDir, ".as")
	err := errors.Join(os.RemoveAll(private), os.MkdirAll(private, 0o700))
	defer os.RemoveAll(private) //nolint:errcheck // it is empty by then
	var l *net.UnixListener
	if err == nil {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(private, "s"), Net: "unix"})
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot open the server's socket: %w", err).At(path)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(filepath.Join(private, "s"), 0o600), os.Rename(filepath.Join(private, "s"), path)); err != nil {
		return nil, errors.Join(fault.New(fault.Unavailable, "cannot open the server's socket: %w", err).At(path), l.Close())
	}
	return l, nil
}

func checkSocketPath(path string) error {
	if len(path) <= maxSocketPath {
		return nil
	}
	return fault.New(fault.Invalid, "the path of the server's socket has %d characters, at most %d are possible", len(path), maxSocketPath).
		At(path).Mend("use a state directory with a shorter path: --dir DIR")
}
