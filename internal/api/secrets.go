package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// Secrets keeps the secrets of environments. Every change is in the record, without the
// value, before it can be seen. It may be called concurrently.
type Secrets interface {
	// Set adds a version.
	Set(ctx context.Context, actor string, q SetSecret) (Secret, error)
	// List gives every version by name and number; with uses also who needs it.
	List(ctx context.Context, app, env string, uses bool) ([]Secret, error)
	// Remove removes versions for good, and refuses to remove one that a kept release needs.
	Remove(ctx context.Context, actor string, q RemoveSecret) ([]Secret, error)
}

// Secret is one version of a secret. Its value is not told to anybody.
type Secret struct {
	Name    string        `json:"name"`
	Version int           `json:"version"` // from 1
	Sealed  digest.Digest `json:"sealed"`  // of the encrypted value
	Set     time.Time     `json:"set"`
	NUL     bool          `json:"nul,omitempty"`    // it is the newest, and has a NUL byte: no variable can hold it
	Needed  []ReleaseRef  `json:"needed,omitempty"` // kept releases that name it, if that was asked
}

// SetSecret asks for a new version: POST /v1/secrets.
type SetSecret struct {
	App   string `json:"app"`
	Env   string `json:"env"`
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// RemoveSecret asks for versions to be removed: POST /v1/secrets/remove.
type RemoveSecret struct {
	App     string `json:"app"`
	Env     string `json:"env"`
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"` // 0: all
}

func (s *Server) setSecret(ctx context.Context, r request) (Secret, error) {
	var q SetSecret
	if err := r.into(&q); err != nil {
		return Secret{}, err
	}
	return s.Secrets.Set(ctx, r.actor, q)
}

func (s *Server) secrets(ctx context.Context, r request) ([]Secret, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	return s.Secrets.List(ctx, key.App, key.Env, r.query.Get("uses") == "true")
}

func (s *Server) removeSecret(ctx context.Context, r request) ([]Secret, error) {
	var q RemoveSecret
	if err := r.into(&q); err != nil {
		return nil, err
	}
	return s.Secrets.Remove(ctx, r.actor, q)
}

// SetSecret adds a version of a secret.
func (c *Client) SetSecret(ctx context.Context, q SetSecret) (Secret, error) {
	var out Secret
	return out, c.post(ctx, "/v1/secrets", q, &out)
}

// Secrets lists the versions of an environment's secrets, by name and number.
func (c *Client) Secrets(ctx context.Context, app, env string, uses bool) ([]Secret, error) {
	var out []Secret
	return out, c.get(ctx, "/v1/secrets", url.Values{"app": {app}, "env": {env}, "uses": {strconv.FormatBool(uses)}}, &out)
}

// RemoveSecret removes versions of a secret and gives them.
func (c *Client) RemoveSecret(ctx context.Context, q RemoveSecret) ([]Secret, error) {
	var out []Secret
	return out, c.post(ctx, "/v1/secrets/remove", q, &out)
}
