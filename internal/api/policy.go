package api

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Admission knows policies and what they are judged by.
type Admission interface {
	// Gather gives what is known of a release.
	Gather(ctx context.Context, now time.Time, p rollout.Plea) (policy.Facts, error)
	// Verdict judges; without facts it only says whether the policy is sound.
	Verdict(ctx context.Context, q policy.Question) (policy.Verdict, error)
	// Sound says whether a policy can be judged by: nil, or its mistakes.
	Sound(ctx context.Context, name string, document []byte) error
	// SetDatabase takes a database of vulnerabilities into use and says what it is.
	SetDatabase(ctx context.Context, actor, path string) (Database, error)
}

// PolicyStore keeps the policies of environments.
type PolicyStore interface {
	Policy(ctx context.Context, env engine.Key) ([]byte, error)
	PolicyNamed(ctx context.Context, d digest.Digest) ([]byte, error)
	SetPolicy(ctx context.Context, env engine.Key, document []byte, entry record.Entry) (bool, error)
}

// Database is a database of vulnerabilities.
type Database struct {
	Digest  digest.Digest `json:"digest"`
	Date    time.Time     `json:"date"`
	Records int           `json:"records"`
}

// PolicyRequest sets the policy of an environment: POST /v1/policy.
type PolicyRequest struct {
	App      string `json:"app"`
	Env      string `json:"env"`
	Name     string `json:"name,omitempty"`     // of the file, for messages
	Document string `json:"document,omitempty"` // empty: the environment has no policy any more
	Reason   string `json:"reason,omitempty"`
}

// Policy is the policy of an environment.
type Policy struct {
	App      string        `json:"app"`
	Env      string        `json:"env"`
	Digest   digest.Digest `json:"digest,omitempty"` // empty: it has none
	Document string        `json:"document,omitempty"`
	Changed  bool          `json:"changed,omitempty"` // by the request that is answered

	Signer   trust.KeyID `json:"signer,omitempty"`   // key that signs verdicts by it as verification summaries
	Unsigned string      `json:"unsigned,omitempty"` // why none does
}

// TestRequest asks what a policy would say: POST /v1/policy/test.
type TestRequest struct {
	App        string        `json:"app"`
	Env        string        `json:"env"`
	Release    string        `json:"release,omitempty"` // number or digest; empty: the newest
	Kind       string        `json:"kind,omitempty"`    // deploy when empty, or rollback
	BreakGlass string        `json:"breakGlass,omitempty"`
	At         time.Time     `json:"at,omitzero"`        // the year 1: now
	Name       string        `json:"name,omitempty"`     // of the document's file
	Document   string        `json:"document,omitempty"` // empty: the policy of the environment
	Facts      *policy.Facts `json:"facts,omitempty"`    // nil: what the server knows
	FactsOnly  bool          `json:"factsOnly,omitempty"`
}

// Tested has what was judged, and the verdict; nil where only facts were asked for, or
// the environment has no policy.
type Tested struct {
	Facts   policy.Facts    `json:"facts"`
	Verdict *policy.Verdict `json:"verdict,omitempty"`
}

// DatabaseRequest names a file on the server's machine: POST /v1/policy/database.
type DatabaseRequest struct {
	Path string `json:"path"`
}

func (s *Server) setPolicy(ctx context.Context, r request) (Policy, error) {
	var q PolicyRequest
	if err := r.into(&q); err != nil {
		return Policy{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return Policy{}, err
	}
	e := record.Entry{Time: s.Now().UTC(), Actor: r.actor, Kind: "policy.removed", App: key.App, Env: key.Env, Reason: q.Reason}
	var document []byte
	out := Policy{App: key.App, Env: key.Env}
	if q.Document != "" {
		document = []byte(q.Document)
		if err := s.Admission.Sound(ctx, q.Name, document); err != nil {
			return Policy{}, err
		}
		out.Digest = digest.FromBytes(document)
		e.Kind, e.Data = "policy.set", map[string]string{"policy": string(out.Digest)}
	} else if strings.TrimSpace(q.Reason) == "" {
		return Policy{}, fault.New(fault.Invalid, "a policy is removed with a reason").At(key.String()).Mend(`say why:  --reason "..."`)
	}
	out.Changed, err = s.Policies.SetPolicy(ctx, key, document, e)
	if state, _, known := s.Store.State(ctx, key); known == nil && state.App != "" {
		s.Engine.Judge(key) // a rollout in flight is judged by it at once
	}
	return out, err
}

func (s *Server) policy(ctx context.Context, r request) (Policy, error) {
	key, err := r.key()
	if err != nil {
		return Policy{}, err
	}
	out := Policy{App: key.App, Env: key.Env}
	var doc []byte
	if d := r.query.Get("digest"); d != "" {
		doc, err = s.Policies.PolicyNamed(ctx, digest.Digest(d))
		if doc == nil && err == nil {
			err = fault.New(fault.NotFound, "no policy has the digest %s", d).Mend("the record names them:  ashlar log %s", key.Env)
		}
	} else {
		doc, err = s.Policies.Policy(ctx, key)
	}
	if err != nil || doc == nil {
		return out, err
	}
	out.Digest, out.Document = digest.FromBytes(doc), string(doc)
	out.Signer, err = s.Deployer()
	switch {
	case err != nil:
		out.Unsigned = fault.Of(err).What
	case out.Signer == "":
		out.Unsigned = "the server has no deployer key"
	}
	return out, nil
}

func (s *Server) testPolicy(ctx context.Context, r request) (Tested, error) {
	var q TestRequest
	if err := r.into(&q); err != nil {
		return Tested{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return Tested{}, err
	}
	var out Tested
	if q.Facts != nil {
		out.Facts = *q.Facts
	} else if out.Facts, err = s.facts(ctx, r.actor, key, q); err != nil {
		return out, err
	}
	if q.FactsOnly {
		return out, nil
	}
	document := []byte(q.Document)
	if q.Document == "" {
		q.Name = "the policy of " + key.Env
		if document, err = s.Policies.Policy(ctx, key); err != nil || document == nil {
			return out, err
		}
	}
	v, err := s.Admission.Verdict(ctx, policy.Question{Name: q.Name, Document: document, Facts: &out.Facts})
	out.Verdict = &v
	return out, err
}

func (s *Server) facts(ctx context.Context, actor string, key engine.Key, q TestRequest) (policy.Facts, error) {
	stored, err := s.asked(ctx, key.App, q.Release)
	if err != nil {
		return policy.Facts{}, err
	}
	p := rollout.Plea{Key: key, Release: stored.Digest, Number: stored.Number, Kind: q.Kind, Actor: actor, BreakGlass: q.BreakGlass}
	if p.Kind == "" {
		p.Kind = policy.Deploy
	}
	now := q.At
	if now.IsZero() {
		now = s.Now()
	}
	return s.Admission.Gather(ctx, now, p)
}

// asked is the release that is meant; the newest if none is named.
func (s *Server) asked(ctx context.Context, app, ref string) (engine.Stored, error) {
	if ref != "" {
		return s.Engine.FindRelease(ctx, app, ref)
	}
	all, err := s.Store.Releases(ctx, app)
	if err != nil {
		return engine.Stored{}, err
	}
	if len(all) == 0 {
		return engine.Stored{}, fault.New(fault.NotFound, "application %s has no releases", app).Mend("deploy it:  ashlar deploy")
	}
	return all[len(all)-1], nil
}

func (s *Server) setDatabase(ctx context.Context, r request) (Database, error) {
	var q DatabaseRequest
	if err := r.into(&q); err != nil {
		return Database{}, err
	}
	return s.Admission.SetDatabase(ctx, r.actor, q.Path)
}

// SetPolicy sets or removes the policy of an environment.
func (c *Client) SetPolicy(ctx context.Context, q PolicyRequest) (Policy, error) {
	var out Policy
	return out, c.post(ctx, "/v1/policy", q, &out)
}

// Policy gives the policy of an environment, or with a digest one that is or was one.
func (c *Client) Policy(ctx context.Context, app, env, digest string) (Policy, error) {
	var out Policy
	return out, c.get(ctx, "/v1/policy", url.Values{"app": {app}, "env": {env}, "digest": {digest}}, &out)
}

// TestPolicy asks what a policy would say, or what is known.
func (c *Client) TestPolicy(ctx context.Context, q TestRequest) (Tested, error) {
	var out Tested
	return out, c.post(ctx, "/v1/policy/test", q, &out)
}

// SetDatabase has the server take a database of vulnerabilities into use.
func (c *Client) SetDatabase(ctx context.Context, path string) (Database, error) {
	var out Database
	return out, c.post(ctx, "/v1/policy/database", DatabaseRequest{path}, &out)
}
