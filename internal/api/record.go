package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Store is what the API reads, beside the engine: the same store.
type Store interface {
	engine.Store
	// Head is the size of the record and its root.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Appended gives a channel that is closed by the next change.
	Appended() <-chan struct{}
}

// follow emits the entries of env (the zero Key: all) from an index on, and then
// each new one, until ctx ends or emit fails.
func (s *Server) follow(ctx context.Context, env engine.Key, from int64, emit func(entry) error) error {
	for {
		appended := s.Store.Appended() // before looking, so that nothing is missed
		entries, err := s.Store.Entries(ctx, env, from, -1)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := emit(e); err != nil {
				return err
			}
			from = e.Index + 1
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-appended:
		}
	}
}

// Notary speaks for the record to the outside: internal/notary.
type Notary interface {
	// Publish signs the record as it is now.
	Publish(ctx context.Context) (record.Seen, error)
	// Prove gives the proof that an entry is in the record.
	Prove(ctx context.Context, index int64) (record.InclusionProof, error)
	// ProveAll gives the proofs of several entries, all by the same checkpoint.
	ProveAll(ctx context.Context, indexes []int64) ([]record.InclusionProof, error)
	// Consistency gives the proof that the record begins with its first old entries.
	Consistency(ctx context.Context, old int64) (record.ConsistencyProof, error)
	// Handler serves the record as files, for reading alone.
	Handler() http.Handler
}

// logPath is where the server has the files of the record.
const logPath = "/log/"

func (s *Server) checkpoint(ctx context.Context, _ request) (LogText, error) {
	now, err := s.Notary.Publish(ctx)
	return LogText{string(now.Signed)}, err
}

func (s *Server) prove(ctx context.Context, r request) (LogText, error) {
	index, err := integer(r.query, "index", -1)
	if err != nil {
		return LogText{}, err
	}
	p, err := s.Notary.Prove(ctx, index)
	return LogText{string(p.Marshal())}, err
}

func (s *Server) consistency(ctx context.Context, r request) (LogText, error) {
	old, err := integer(r.query, "old", -1)
	if err != nil {
		return LogText{}, err
	}
	p, err := s.Notary.Consistency(ctx, old)
	return LogText{string(p.Marshal())}, err
}

// maxStatements bounds a request to record statements.
const maxStatements = 1000

// LogRequest asks for signed statements to be recorded: POST /v1/log/statements.
type LogRequest struct {
	Leaves [][]byte `json:"leaves"` // as trust.Bundle.LogEntry spells them
}

// LogTexts are proofs, in the order of what they prove.
type LogTexts struct {
	Texts []string `json:"texts"`
}

// logStatements records signed statements, whoever signed them: who may say what is
// judged by those who read them, with a trust root.
func (s *Server) logStatements(ctx context.Context, r request) (LogTexts, error) {
	var q LogRequest
	if err := r.into(&q); err != nil {
		return LogTexts{}, err
	}
	if len(q.Leaves) == 0 || len(q.Leaves) > maxStatements {
		return LogTexts{}, fault.New(fault.Invalid, "the request has %d statements; it must have 1 to %d", len(q.Leaves), maxStatements)
	}
	var keys []string
	for _, leaf := range q.Leaves {
		key, err := trust.CheckLogEntry(leaf)
		if err != nil {
			return LogTexts{}, fault.New(fault.Invalid, "%w", err)
		}
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	e := record.Entry{Time: s.Now().UTC(), Actor: r.actor, Kind: "statement.logged", Data: map[string]string{"key": strings.Join(slices.Compact(keys), " ")}}
	first, err := s.AppendStatements(ctx, q.Leaves, e)
	if err != nil {
		return LogTexts{}, err
	}
	indexes := make([]int64, len(q.Leaves))
	for i := range indexes {
		indexes[i] = first + int64(i)
	}
	return s.proofs(ctx, indexes)
}

// ProveRequest asks for the proofs of entries: POST /v1/log/proofs.
type ProveRequest struct {
	Indexes []int64 `json:"indexes"`
}

// maxProofs bounds a request for proofs.
const maxProofs = 100_000

func (s *Server) proveAll(ctx context.Context, r request) (LogTexts, error) {
	var q ProveRequest
	if err := r.into(&q); err != nil {
		return LogTexts{}, err
	}
	if len(q.Indexes) == 0 || len(q.Indexes) > maxProofs {
		return LogTexts{}, fault.New(fault.Invalid, "the request has %d entries; it must have 1 to %d", len(q.Indexes), maxProofs)
	}
	return s.proofs(ctx, q.Indexes)
}

// proofs proves entries of the record, all by the same checkpoint.
func (s *Server) proofs(ctx context.Context, indexes []int64) (LogTexts, error) {
	proofs, err := s.Notary.ProveAll(ctx, indexes)
	out := LogTexts{}
	for _, p := range proofs {
		out.Texts = append(out.Texts, string(p.Marshal()))
	}
	return out, err
}

// logSource is record.Source over HTTP.
type logSource struct {
	ctx  context.Context // of the one audit that the source was made for
	http *http.Client
	base string // ends with a slash
}

// maxLogFile bounds a file of a log: 256 entries of the largest size.
const maxLogFile = 256 * (2 + record.MaxLeaf)

// NewLogSource reads a log that is served at a URL.
func NewLogSource(ctx context.Context, address string) (record.Source, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, "%q is not the address of a log", address).Mend("write  --url http://127.0.0.1:8441/")
	}
	return logSource{ctx, &http.Client{Timeout: time.Minute}, strings.TrimSuffix(u.String(), "/") + "/"}, nil
}

// Read is record.Source.
func (s logSource) Read(path string) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the log does not answer: %w", err).At(s.base)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("%s%s: %w", s.base, path, fs.ErrNotExist)
	default:
		return nil, fault.New(fault.Unavailable, "the log answers with status %d", resp.StatusCode).At(s.base + path)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxLogFile+1))
	if err == nil && len(data) > maxLogFile {
		err = fault.New(fault.Refused, "the log answers with more than %d bytes", maxLogFile).At(s.base + path)
	}
	return data, err
}
