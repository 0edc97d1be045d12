package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// maxBody bounds a request, in bytes: a proof and a checkpoint with a hundred
// signatures.
const maxBody = 64 << 10

// Server is a witness. Its handler is safe for concurrent use.
type Server struct {
	dir string
	key *record.Witness
	now func() time.Time
	log *slog.Logger

	mu   sync.Mutex // from what is known to what is remembered: one request at a time
	logs map[string]note.Verifier
}

// New makes a witness that keeps what it saw in dir, for the logs of the keys.
func New(dir string, key *record.Witness, logs []note.Verifier, now func() time.Time, log *slog.Logger) (*Server, error) {
	s := &Server{dir: dir, key: key, now: now, log: log, logs: map[string]note.Verifier{}}
	for _, l := range logs {
		s.logs[l.Name()] = l
	}
	if err := os.MkdirAll(filepath.Join(dir, "seen"), 0o755); err != nil {
		return nil, fault.New(fault.Unavailable, "the witness cannot keep what it sees: %w", err).At(dir)
	}
	for _, l := range logs {
		if _, err := s.known(l); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Handler answers add-checkpoint, and for monitors the last checkpoint of each log
// that was cosigned, at /seen/ and the log's name.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", s.add)
	mux.HandleFunc("GET /seen/", func(w http.ResponseWriter, r *http.Request) {
		signed, err := os.ReadFile(s.file(strings.TrimPrefix(r.URL.Path, "/seen/")))
		if err != nil {
			http.Error(w, "no checkpoint of that log was cosigned", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(signed) //nolint:errcheck // the client went away
	})
	return mux
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	p, err := record.ParseConsistencyProof(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines, err := s.cosign(p)
	var no *refusal
	switch {
	case err == nil:
		w.Write(lines) //nolint:errcheck // the client went away
	case errors.As(err, &no) && no.status == http.StatusConflict:
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", no.known) //nolint:errcheck // the client went away
	case errors.As(err, &no):
		http.Error(w, no.what, no.status)
	default:
		s.log.Error("cannot cosign", "err", err)
		http.Error(w, "the witness cannot remember what it sees", http.StatusInternalServerError)
	}
}

// cosign decides, remembers, and only then signs.
func (s *Server) cosign(p record.ConsistencyProof) ([]byte, error) {
	origin, _, _ := strings.Cut(string(p.Checkpoint), "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	log, ok := s.logs[origin]
	if !ok {
		return nil, &refusal{status: http.StatusNotFound, what: "this witness does not know the log"}
	}
	known, err := s.known(log)
	if err != nil {
		return nil, err
	}
	c, no := decide(known, log, p)
	if no != nil {
		switch {
		case no.status == http.StatusConflict && p.Old == known.Size: // two of one size, both signed by the log: evidence
			s.log.Error("a log broke its promise", "log", origin, "why", no.what, "checkpoint", string(p.Checkpoint))
		case no.status == http.StatusUnprocessableEntity: // anybody can send a true checkpoint with a false proof
			s.log.Warn("a checkpoint does not provably follow the one before", "log", origin, "why", no.what, "checkpoint", string(p.Checkpoint))
		}
		return nil, no
	}
	signed, err := c.Sign(s.key.At(s.now()))
	if err != nil {
		return nil, err
	}
	if err := durable.Replace(s.file(origin), p.Checkpoint, 0o644); err != nil {
		return nil, err
	}
	_, lines, _ := strings.Cut(string(signed), "\n\n")
	return []byte(lines), nil
}

// known is the last checkpoint of a log that was cosigned.
func (s *Server) known(log note.Verifier) (record.Checkpoint, error) {
	path := s.file(log.Name())
	signed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record.Checkpoint{}, nil
	}
	if err != nil {
		return record.Checkpoint{}, fault.New(fault.Unavailable, "what the witness saw cannot be read: %w", err).At(path)
	}
	c, err := record.OpenCheckpoint(signed, log)
	if err != nil {
		return c, fault.New(fault.Refused, "what the witness saw is damaged: %w", err).At(path).
			Mend("a witness that lost its memory must not go on under its name: make a new one, in another directory")
	}
	return c, nil
}

func (s *Server) file(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(s.dir, "seen", hex.EncodeToString(sum[:])+".checkpoint")
}
