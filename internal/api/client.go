package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Client talks to the server of a run directory. It is safe for concurrent use.
type Client struct {
	socket string
	dir    string // state directory, named in remedies
	http   *http.Client
}

// Dial makes a client; it connects when it is used. A server that is not there
// is a fault of kind Unavailable that says how to start it for the state directory dir.
func Dial(runDir, dir string) *Client {
	c := &Client{socket: SocketPath(runDir), dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.socket)
		},
	}}
	return c
}

// AddRelease stores a canonical release document.
func (c *Client) AddRelease(ctx context.Context, doc []byte) (AddedRelease, error) {
	var out AddedRelease
	return out, c.send(ctx, http.MethodPost, "/v1/releases", doc, &out)
}

// Release reads a stored release by number, digest or the digest's beginning.
func (c *Client) Release(ctx context.Context, app, ref string) (Release, error) {
	var out Release
	return out, c.get(ctx, "/v1/release", url.Values{"app": {app}, "release": {ref}}, &out)
}

// Ahead says that a deploy is being built, so that the server can get ready for it.
func (c *Client) Ahead(ctx context.Context, q AheadRequest) error {
	var out struct{}
	return c.post(ctx, "/v1/ahead", q, &out)
}

// Plan asks what a release would change.
func (c *Client) Plan(ctx context.Context, q PlanRequest) (Plan, error) {
	var out Plan
	return out, c.post(ctx, "/v1/plan", q, &out)
}

// Deploy puts a rollout to a stored release in flight.
func (c *Client) Deploy(ctx context.Context, q BeginRequest) (Begun, error) {
	var out Begun
	return out, c.post(ctx, "/v1/deploy", q, &out)
}

// Rollback puts a rollout to a known-good release in flight.
func (c *Client) Rollback(ctx context.Context, q BeginRequest) (Begun, error) {
	var out Begun
	return out, c.post(ctx, "/v1/rollback", q, &out)
}

// Down puts a rollout in flight that takes everything of an environment away.
func (c *Client) Down(ctx context.Context, q BeginRequest) (Begun, error) {
	var out Begun
	return out, c.post(ctx, "/v1/down", q, &out)
}

// Control says a word to the rollout in flight, or retries the last one.
func (c *Client) Control(ctx context.Context, q ControlRequest) (Begun, error) {
	var out Begun
	return out, c.post(ctx, "/v1/rollout", q, &out)
}

// Withdraw takes back a rollout that waits, and gives it.
func (c *Client) Withdraw(ctx context.Context, q WithdrawRequest) (rollout.Queued, error) {
	var out rollout.Queued
	return out, c.post(ctx, "/v1/rollout/withdraw", q, &out)
}

// InFlight gives the rollout in flight; a fault of kind NotFound if there is none.
func (c *Client) InFlight(ctx context.Context, app, env string) (Begun, error) {
	var out Begun
	return out, c.get(ctx, "/v1/rollout", url.Values{"app": {app}, "env": {env}}, &out)
}

// Why tells what an environment waits for.
func (c *Client) Why(ctx context.Context, app, env string) ([]rollout.Cause, error) {
	var out []rollout.Cause
	return out, c.get(ctx, "/v1/why", url.Values{"app": {app}, "env": {env}}, &out)
}

// Quarantine lists an application's releases that failed.
func (c *Client) Quarantine(ctx context.Context, app string) ([]Quarantined, error) {
	var out []Quarantined
	return out, c.get(ctx, "/v1/quarantine", url.Values{"app": {app}}, &out)
}

// Lift ends the quarantine of a release.
func (c *Client) Lift(ctx context.Context, q LiftRequest) (Lifted, error) {
	var out Lifted
	return out, c.post(ctx, "/v1/quarantine/lift", q, &out)
}

// Environments lists every environment of the server.
func (c *Client) Environments(ctx context.Context) ([]Environment, error) {
	var out []Environment
	return out, c.get(ctx, "/v1/environments", nil, &out)
}

// Status tells everything of one environment.
func (c *Client) Status(ctx context.Context, app, env string) (Status, error) {
	var out Status
	return out, c.get(ctx, "/v1/status", url.Values{"app": {app}, "env": {env}}, &out)
}

// History tells what happened to an application; env may be empty.
func (c *Client) History(ctx context.Context, app, env string) (History, error) {
	var out History
	return out, c.get(ctx, "/v1/history", url.Values{"app": {app}, "env": {env}}, &out)
}

// VerifyLog has the server recompute the record.
func (c *Client) VerifyLog(ctx context.Context) (record.Report, error) {
	var out record.Report
	return out, c.get(ctx, "/v1/log/verify", nil, &out)
}

// Checkpoint gives the record's signed checkpoint, which covers all that was
// appended before.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	var out LogText
	err := c.get(ctx, "/v1/log/checkpoint", nil, &out)
	return []byte(out.Text), err
}

// Prove gives the proof that an entry is in the record, as record.InclusionProof
// spells it.
func (c *Client) Prove(ctx context.Context, index int64) ([]byte, error) {
	var out LogText
	err := c.get(ctx, "/v1/log/prove", url.Values{"index": {number(index)}}, &out)
	return []byte(out.Text), err
}

// Consistency gives the proof that the record begins with its first old entries,
// as record.ConsistencyProof spells it.
func (c *Client) Consistency(ctx context.Context, old int64) ([]byte, error) {
	var out LogText
	err := c.get(ctx, "/v1/log/consistency", url.Values{"old": {number(old)}}, &out)
	return []byte(out.Text), err
}

// LogStatements records signed statements, as trust.Bundle.LogEntry spells them, and
// gives the proofs that they are in the record.
func (c *Client) LogStatements(ctx context.Context, leaves [][]byte) ([][]byte, error) {
	var out LogTexts
	if err := c.post(ctx, "/v1/log/statements", LogRequest{leaves}, &out); err != nil {
		return nil, err
	}
	return out.bytes(len(leaves))
}

// ProveAll gives the proofs that entries are in the record, all by the same checkpoint.
func (c *Client) ProveAll(ctx context.Context, indexes []int64) ([][]byte, error) {
	var out LogTexts
	if err := c.post(ctx, "/v1/log/proofs", ProveRequest{indexes}, &out); err != nil {
		return nil, err
	}
	return out.bytes(len(indexes))
}

// bytes gives the proofs, of which there have to be as many as were asked for.
func (l LogTexts) bytes(want int) ([][]byte, error) {
	if len(l.Texts) != want {
		return nil, fault.New(fault.Internal, "the server gave %d proofs of %d entries", len(l.Texts), want)
	}
	var out [][]byte
	for _, t := range l.Texts {
		out = append(out, []byte(t))
	}
	return out, nil
}

// Log reads the record as a log of tiles, over the server's socket.
func (c *Client) Log(ctx context.Context) record.Source {
	return logSource{ctx, c.http, "http://ashlar" + logPath}
}

// GC has the server remove what no release needs.
func (c *Client) GC(ctx context.Context, q GCRequest) (GCReport, error) {
	var out GCReport
	return out, c.post(ctx, "/v1/gc", q, &out)
}

// Doctor asks the server for its checks.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	var out []Check
	return out, c.get(ctx, "/v1/doctor", nil, &out)
}

// Version asks the server who it is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var out Version
	return out, c.get(ctx, "/v1/version", nil, &out)
}

// End asks the server to end.
func (c *Client) End(ctx context.Context, q EndRequest) (Version, error) {
	var out Version
	return out, c.post(ctx, "/v1/end", q, &out)
}

// Entries calls f for each entry of the record that q selects, until f fails or,
// following, ctx ends.
func (c *Client) Entries(ctx context.Context, q EntriesQuery, f func(record.Entry) error) error {
	v := url.Values{"app": {q.App}, "env": {q.Env}, "from": {number(q.From)}, "to": {number(q.To)}, "follow": {strconv.FormatBool(q.Follow)}}
	return follow(ctx, c, "/v1/entries", v, f)
}

// Output calls f for each line that q selects, until f fails or, following, ctx ends.
func (c *Client) Output(ctx context.Context, q OutputQuery, f func(OutputLine) error) error {
	v := url.Values{
		"app": {q.App}, "env": {q.Env}, "component": {q.Component}, "instance": {q.Instance},
		"tail": {strconv.Itoa(q.Tail)}, "follow": {strconv.FormatBool(q.Follow)},
	}
	return follow(ctx, c, "/v1/output", v, f)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func (c *Client) get(ctx context.Context, path string, q url.Values, into any) error {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.send(ctx, http.MethodGet, path, nil, into)
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fault.New(fault.Internal, "cannot encode the request: %w", err)
	}
	return c.send(ctx, http.MethodPost, path, b, into)
}

func (c *Client) send(ctx context.Context, method, path string, body []byte, into any) (err error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return c.broken(err)
	}
	return nil
}

// do sends one request; an answer that is an error becomes the fault it carries.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	if err := checkSocketPath(c.socket); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ashlar"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Internal, "cannot make the request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, c.broken(err)
	}
	var list faults
	if err := json.Unmarshal(b, &list); err != nil || len(list.Faults) == 0 {
		return nil, fault.New(fault.Internal, "the server answered with status %d", resp.StatusCode).At(c.socket).Detail(string(bytes.TrimSpace(b)))
	}
	if len(list.Faults) == 1 {
		return nil, list.Faults[0]
	}
	return nil, list.Faults
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Refused, "the server's socket is for its owner only").At(c.socket).Mend("run as the user of the server (root)")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fault.New(fault.Unavailable, "no server is running for %s", c.dir).At(c.socket).Mend("start it:  ashlar server --dir %s", c.dir)
	default:
		return fault.New(fault.Unavailable, "the server does not answer: %w", err).At(c.socket)
	}
}

func (c *Client) broken(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fault.New(fault.Unavailable, "the server's answer broke off: %w", err).At(c.socket)
}

// follow reads a stream of JSON lines.
func follow[T any](ctx context.Context, c *Client, path string, q url.Values, f func(T) error) (err error) {
	resp, err := c.do(ctx, http.MethodGet, path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	dec := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var l line[T]
		err := dec.Decode(&l)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return c.broken(err)
		case l.Fault != nil:
			return l.Fault
		case l.Value == nil:
			continue
		}
		if err := f(*l.Value); err != nil {
			return err
		}
	}
}
