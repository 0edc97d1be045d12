package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Client talks to the router of a run directory. It is safe for concurrent use,
// connects when it is used, and survives restarts of the router.
type Client struct {
	runDir string
	http   *http.Client
}

// Dial makes a client. It does not connect: a router that is not there shows as
// an Unavailable fault of the methods.
func Dial(runDir string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 2 * time.Second}
			return d.DialContext(ctx, "unix", socketPath(runDir))
		},
		IdleConnTimeout: time.Minute,
	}
	return &Client{runDir: runDir, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// Apply replaces the environment's table in one step. When it returns nil, no new
// request reaches a backend that is not in the table, or in it with weight 0 and
// not of its service's Match. A
// table of an older generation than the one in force, or another one of the same
// generation, is refused with a Conflict fault; the same one again is accepted.
// After a fault nothing has changed, unless it is Unavailable: then the reply may
// have been lost, and applying the same table again is safe.
func (c *Client) Apply(ctx context.Context, env rollout.Key, table rollout.Table) error {
	body, err := json.Marshal(table)
	if err != nil {
		return fault.New(fault.Internal, "cannot encode the routing table: %w", err)
	}
	return c.do(ctx, http.MethodPut, environmentPath(env), body, nil)
}

// Status reports the table in force and the requests under way; generation 0 if
// the router knows nothing of the environment.
func (c *Client) Status(ctx context.Context, env rollout.Key) (rollout.RouterStatus, error) {
	s, err := c.Describe(ctx, env)
	return s.RouterStatus, err
}

// Describe is Status with the counters.
func (c *Client) Describe(ctx context.Context, env rollout.Key) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, environmentPath(env), nil, &s)
	return s, err
}

// All describes every environment that the router knows, sorted.
func (c *Client) All(ctx context.Context) (s []Status, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/environments", nil, &s)
	return s, err
}

// Health asks the router how it is.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/health", nil, &h)
	return h, err
}

func environmentPath(env rollout.Key) string {
	return "/v1/environments/" + url.PathEscape(env.App) + "/" + url.PathEscape(env.Env)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) (err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://router"+path, bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Internal, "cannot make the request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, "the router does not answer: %w", err).At(socketPath(c.runDir)).
			Mend("start it:  ashlar router --run %s", c.runDir)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fault.New(fault.Unavailable, "the router's answer broke off: %w", err).At(socketPath(c.runDir))
	}
	if resp.StatusCode >= 300 {
		return refusal(resp.StatusCode, data)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.New(fault.Internal, "the router's answer is not readable: %w", err).At(socketPath(c.runDir))
	}
	return nil
}

// refusal gives the fault that the router sent, or one that tells what it sent instead.
func refusal(status int, data []byte) error {
	var f fault.Error
	if err := json.Unmarshal(data, &f); err != nil || f.Kind == "" {
		return fault.New(fault.Internal, "the router answered with status %d", status).Detail(string(bytes.TrimSpace(data)))
	}
	return &f
}
