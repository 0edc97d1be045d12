package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// maxRequests is how many requests are answered at the same time. Others are told to
// come back.
const maxRequests = 256

// Config says what a server serves, and to whom.
type Config struct {
	Objects  *object.Store
	Catalog  Catalog // what Ashlar built; nil: nothing
	Users    *Users  // nil: everybody may read and write
	Loopback bool    // answer only requests that name an address of the loopback, so that no web page can ask in another name
	Now      func() time.Time
	Log      *slog.Logger
}

// Server answers the requests of the OCI distribution specification.
type Server struct {
	objects  *object.Store
	catalog  Catalog
	users    *Users
	loopback bool
	log      *slog.Logger
	built    *built
	attached *attached
	uploads  *sessions
	busy     chan struct{}
	changing sync.Mutex // of manifests and tags: what a manifest names stays while it is looked at
}

// New makes a server. Close it when no request is under way any more.
func New(c Config) *Server {
	if c.Catalog == nil {
		c.Catalog = noCatalog{}
	}
	return &Server{
		objects: c.Objects, catalog: c.Catalog, users: c.Users, loopback: c.Loopback, log: c.Log,
		built:    &built{objects: c.Objects, parsed: map[digest.Digest]image.Manifest{}},
		attached: &attached{objects: c.Objects, parsed: map[digest.Digest]document{}},
		uploads:  &sessions{objects: c.Objects, now: c.Now, open: map[string]*session{}},
		busy:     make(chan struct{}, maxRequests),
	}
}

// Close gives up the uploads that were not ended.
func (s *Server) Close() error { return s.uploads.close() }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	pw := &patientWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	err := s.answer(pw, r)
	if err == nil {
		return
	}
	if pw.begun { // it is too late to say so: break off
		s.log.Warn("an answer was broken off", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	s.refuse(pw, r, err)
}

// answer answers one request, or gives why not.
func (s *Server) answer(w *patientWriter, r *http.Request) error {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	default:
		w.Header().Set("Retry-After", "1")
		return &problem{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many requests are under way"}
	}
	if s.loopback && !loopbackName(r.Host) {
		return &problem{http.StatusMisdirectedRequest, "DENIED", "this registry answers to names of the loopback alone"}
	}
	if err := s.permit(w, r); err != nil {
		return err
	}
	r.Body = &patientBody{r.Body, w.control}
	if r.URL.RawPath != "" {
		return &problem{http.StatusBadRequest, "NAME_INVALID", "nothing in a path has to be escaped"}
	}
	t := parsePath(r.URL.Path)
	switch t.endpoint {
	case unknownEndpoint:
		return &problem{http.StatusNotFound, "UNSUPPORTED", "there is nothing at this path"}
	case ping:
		return s.ping(w, r)
	case catalog:
		return s.list(w, r)
	}
	if !validName(t.name) {
		return &problem{http.StatusBadRequest, "NAME_INVALID", "this is not a name for a repository"}
	}
	v, err := s.view(r.Context(), t.name)
	if err != nil {
		return err
	}
	for _, h := range []struct {
		endpoint endpoint
		methods  string
		do       func(http.ResponseWriter, *http.Request, view, string) error
	}{
		{tagList, "GET HEAD", s.tagList}, {referrers, "GET HEAD", s.referrers},
		{manifests, "GET HEAD", s.getManifest}, {manifests, "PUT", s.putManifest}, {manifests, "DELETE", s.deleteManifest},
		{blobs, "GET HEAD", s.getBlob}, {blobs, "DELETE", s.deleteBlob},
		{uploads, "POST", s.startUpload}, {upload, "GET", s.uploadState}, {upload, "PATCH", s.patchUpload}, {upload, "PUT", s.putUpload}, {upload, "DELETE", s.cancelUpload},
	} {
		if h.endpoint == t.endpoint && strings.Contains(h.methods, r.Method) {
			return h.do(w, r, v, t.ref)
		}
	}
	return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "this cannot be done there"}
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "this cannot be done there"}
	}
	return writeJSON(w, "application/json", struct{}{})
}

// problem is an answer that says no.
type problem struct {
	status  int
	code    string // of the specification's list
	message string
}

// Error implements error.
func (p *problem) Error() string { return p.message }

// refuse answers with an error, in the form that the specification has for it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problemOf(r, err)
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": p.code, "message": p.message}}})
	if err != nil {
		body = nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // who is gone needs no answer
	}
}

func (s *Server) problemOf(r *http.Request, err error) *problem {
	var p *problem
	var f *fault.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "this is larger than is allowed"}
	case errors.Is(err, fs.ErrNotExist):
		return &problem{http.StatusNotFound, "NAME_UNKNOWN", "there is no such thing here"}
	case errors.Is(err, context.Canceled):
		return &problem{http.StatusRequestTimeout, "UNSUPPORTED", "the request was given up"}
	case errors.As(err, &f) && f.Kind == fault.Unavailable:
		s.log.Error("a request failed", "path", r.URL.Path, "err", err)
		return &problem{http.StatusInsufficientStorage, "DENIED", f.What}
	}
	s.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	return &problem{http.StatusInternalServerError, "UNSUPPORTED", "the registry failed; its log says how"}
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	_, err = w.Write(body)
	return err
}

// loopbackName says whether a Host header is localhost or an address of the loopback.
func loopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
