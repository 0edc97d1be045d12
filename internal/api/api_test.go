package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/notary"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// roll deploys a document and follows the record until the rollout has ended.
func (w *world) roll(t *testing.T, doc []byte) (api.Begun, []record.Entry) {
	t.Helper()
	added, err := w.AddRelease(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := w.Deploy(t.Context(), api.BeginRequest{App: "shop", Env: "production", Release: string(added.Digest), Reason: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	return begun, w.until(t, begun)
}

var errEnough = errors.New("enough")

func (w *world) until(t *testing.T, begun api.Begun) []record.Entry {
	t.Helper()
	var entries []record.Entry
	q := api.EntriesQuery{App: "shop", Env: "production", From: begun.Index, To: -1, Follow: true}
	err := w.Entries(t.Context(), q, func(e record.Entry) error {
		entries = append(entries, e)
		if e.Rollout == begun.Rollout.Number && (e.Kind == "rollout.live" || e.Kind == "rollout.put-back") {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	return entries
}

func kinds(entries []record.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Kind)
	}
	return out
}

func TestDeployAndFollow(t *testing.T) {
	w := newWorld(t)
	doc := shop(t, "/web", 2)
	plan, err := w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(doc)})
	if err != nil {
		t.Fatal(err)
	}
	if plan.From != nil || plan.To.Number != 0 || plan.Nothing || plan.Changes[0].Kind != release.Added {
		t.Errorf("the first plan is %+v", plan)
	}

	begun, entries := w.roll(t, doc)
	if begun.Rollout.Number != 1 || len(w.holds) == 0 {
		t.Errorf("begun %+v, collection held off %d times", begun.Rollout, len(w.holds))
	}
	if got := kinds(entries); got[0] != "rollout.begun" || got[len(got)-1] != "rollout.live" {
		t.Errorf("followed %v", got)
	}
	if e := entries[0]; e.Actor != me(t) || e.Reason != "a test" {
		t.Errorf("the rollout was begun by %q because of %q", e.Actor, e.Reason)
	}

	status, err := w.Status(t.Context(), "shop", "production")
	if err != nil {
		t.Fatal(err)
	}
	if status.Number != 1 || status.URL != "http://127.0.0.1:8080" || len(status.Instances) != 2 || status.Releases[status.State.Current.Release] != 1 {
		t.Errorf("status %+v", status)
	}
	if plan, err = w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(doc)}); err != nil || !plan.Nothing || plan.To.Number != 1 {
		t.Errorf("the same release again plans %+v, %v", plan, err)
	}
}

func TestPlanSaysWhichInstancesAndWhy(t *testing.T) {
	w := newWorld(t)
	w.roll(t, shop(t, "/web", 2))
	plan, err := w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(shop(t, "/web2", 2))})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.PlannedInstance{
		{ID: "shop-production-web-1", Component: "web", Kind: release.Replaced, Why: []string{"command: /web -> /web2"}},
		{ID: "shop-production-web-2", Component: "web", Kind: release.Replaced, Why: []string{"command: /web -> /web2"}},
	}
	if diff := cmp.Diff(want, plan.Instances); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	plan, err = w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(shop(t, "/web", 3))})
	if err != nil || plan.Nothing || plan.Changes[0].Kind != release.Scaled || plan.Instances[0].Kind != release.Unchanged {
		t.Errorf("scaling plans %+v, %v", plan, err)
	}
}

func TestServerIsToldAheadOfADeploy(t *testing.T) {
	w := newWorld(t)
	w.roll(t, shop(t, "/web", 2))
	if err := w.Ahead(t.Context(), api.AheadRequest{App: "shop", Env: "production"}); err != nil {
		t.Fatal(err)
	}
	if told := <-w.ahead; told.key.String() != "shop/production" || told.rel != nil {
		t.Errorf("told %+v", told)
	}
	plan := func(command string) {
		t.Helper()
		if _, err := w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(shop(t, command, 2)), Ahead: true}); err != nil {
			t.Fatal(err)
		}
	}
	plan("/web") // changes nothing
	plan("/web2")
	told := <-w.ahead
	if told.rel == nil || told.rel.Environments["production"].Components["web"].Spec.Command[0] != "/web2" || len(w.ahead) > 0 {
		t.Errorf("told %+v and %d more", told, len(w.ahead))
	}
}

func TestPutBackRollbackAndHistory(t *testing.T) {
	w := newWorld(t)
	w.roll(t, shop(t, "/web", 1))
	w.roll(t, shop(t, "/web2", 1))
	_, entries := w.roll(t, shop(t, "/bad", 1))
	if got := kinds(entries); got[len(got)-1] != "rollout.put-back" {
		t.Errorf("a release that exits ended with %v", got)
	}
	status, err := w.Status(t.Context(), "shop", "production")
	if err != nil || status.Number != 2 || status.State.LastResult.Failure.Exit.Code != 3 {
		t.Errorf("after the failure: %+v, %v", status.State.LastResult, err)
	}
	begun, err := w.Rollback(t.Context(), api.BeginRequest{App: "shop", Env: "production"})
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, begun)

	h, err := w.History(t.Context(), "shop", "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range h.Rollouts {
		got = append(got, r.Kind+" "+r.From+">"+r.To+" "+r.Outcome+" "+r.Why)
	}
	want := []string{
		"deploy >1 live the new release serves and nothing of the old is left",
		"deploy 1>2 live the new release serves and nothing of the old is left",
		"deploy 2>3 put-back shop-production-web-3 exited with status 3",
		"rollback 2>1 live the new release serves and nothing of the old is left",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rollouts (-want +got):\n%s", diff)
	}
	if len(h.Releases) != 3 || len(h.Releases[0].LiveIn) != 1 {
		t.Errorf("releases %+v", h.Releases)
	}
	if r, err := w.VerifyLog(t.Context()); err != nil || !r.OK() || r.Size == 0 {
		t.Errorf("the record: %+v, %v", r, err)
	}
}

func TestDown(t *testing.T) {
	w := newWorld(t)
	doc := shop(t, "/web", 2)
	w.roll(t, doc)
	begun, err := w.Down(t.Context(), api.BeginRequest{App: "shop", Env: "production"})
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, begun)
	status, err := w.Status(t.Context(), "shop", "production")
	if err != nil || len(status.Instances) != 0 || status.URL != "" {
		t.Errorf("after down: %+v, %v", status, err)
	}
	if _, err := w.Down(t.Context(), api.BeginRequest{App: "shop", Env: "production"}); fault.Of(err).Kind != fault.NotFound {
		t.Errorf("down again: %v", err)
	}
	plan, err := w.Plan(t.Context(), api.PlanRequest{App: "shop", Env: "production", Document: string(doc)})
	if err != nil || plan.Nothing || plan.Changes[0].Kind != release.Added {
		t.Errorf("the same release plans %+v, %v", plan, err)
	}
	if _, entries := w.roll(t, doc); kinds(entries)[len(entries)-1] != "rollout.live" {
		t.Error("the same release does not come back")
	}
}

func TestFaultsKeepTheirKind(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	in := func(release string) api.BeginRequest {
		return api.BeginRequest{App: "shop", Env: "production", Release: release}
	}
	_, addErr := w.AddRelease(ctx, []byte(`{"app":"x"}`))
	_, largeErr := w.AddRelease(ctx, bytes.Repeat([]byte(" "), release.MaxSize+1))
	_, deployErr := w.Deploy(ctx, in("7"))
	_, statusErr := w.Status(ctx, "shop", "nowhere")
	_, nameErr := w.Status(ctx, "", "production")
	_, gcErr := w.GC(ctx, api.GCRequest{Keep: -1})
	outErr := w.Output(ctx, api.OutputQuery{App: "shop", Env: "nowhere"}, func(api.OutputLine) error { return nil })
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		what string
	}{
		"document":  {addErr, fault.Invalid, "release document"},
		"too large": {largeErr, fault.Invalid, "has more than"},
		"release":   {deployErr, fault.NotFound, `no release "7"`},
		"env":       {statusErr, fault.NotFound, "nothing was ever deployed"},
		"no app":    {nameErr, fault.Invalid, "names no app"},
		"keep":      {gcErr, fault.Invalid, "keep is -1"},
		"output":    {outErr, fault.NotFound, "nothing was ever deployed"},
	} {
		if c.err == nil || fault.Of(c.err).Kind != c.kind || !strings.Contains(c.err.Error(), c.what) {
			t.Errorf("%s: %v, want %s %q", name, c.err, c.kind, c.what)
		}
	}
}

func TestOutputStream(t *testing.T) {
	w := newWorld(t)
	w.roll(t, shop(t, "/web", 1))
	var got []string
	err := w.Output(t.Context(), api.OutputQuery{App: "shop", Env: "production", Component: "web"}, func(l api.OutputLine) error {
		got = append(got, l.Instance+": "+l.Text)
		return nil
	})
	if err != nil || strings.Join(got, "\n") != "web-1: hello web" {
		t.Errorf("output %q, %v", got, err)
	}
	// A fault after the first line arrives too.
	err = w.Output(t.Context(), api.OutputQuery{App: "shop", Env: "production", Instance: "gone"}, func(api.OutputLine) error { return nil })
	if fault.Of(err).Kind != fault.NotFound {
		t.Errorf("a fault in the middle of a stream came as %v", err)
	}
}

// raw sends what the client would not.
func (w *world) raw(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", api.SocketPath(w.dir))
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://ashlar"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestHostileRequests(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/nothing", "", 404, "the server has no GET /nothing"},
		{"DELETE", "/v1/releases", "", 404, "the server has no DELETE"},
		{"POST", "/v1/deploy", "{", 400, "not readable"},
		{"POST", "/v1/deploy", `{"app":"a","env":"b","relase":"1"}`, 400, "unknown field"},
		{"POST", "/v1/deploy", `{"app":"a"}`, 400, "names no env"},
		{"GET", "/v1/entries?from=x", "", 400, "not a number"},
		{"POST", "/v1/releases", "\xff\xfe", 400, "release document"},
	} {
		status, body := w.raw(t, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.text) || !strings.Contains(body, `"faults"`) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
}

func TestSocketIsPrivate(t *testing.T) {
	w := newWorld(t)
	info, err := os.Stat(api.SocketPath(w.dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
}

func TestNoServer(t *testing.T) {
	dir := t.TempDir()
	_, err := api.Dial(dir, "/state").Version(t.Context())
	f := fault.Of(err)
	if f.Kind != fault.Unavailable || f.Fix != "start it:  ashlar server --dir /state" {
		t.Errorf("without a server: %v", err)
	}
	long := dir + strings.Repeat("/x", 60)
	if _, err := api.Dial(long, long).Version(t.Context()); fault.Of(err).Kind != fault.Invalid {
		t.Errorf("a long path: %v", err)
	}
	if _, err := api.Listen(long); fault.Of(err).Kind != fault.Invalid {
		t.Errorf("listening on a long path: %v", err)
	}
}

func TestEndAndSmallAnswers(t *testing.T) {
	w := newWorld(t)
	if v, err := w.End(t.Context(), api.EndRequest{Router: true}); err != nil || v.Version != "test" || !(<-w.ended).Router {
		t.Errorf("end: %+v, %v", v, err)
	}
	if c, err := w.Doctor(t.Context()); err != nil || len(c) != 1 {
		t.Errorf("doctor: %+v, %v", c, err)
	}
	if r, err := w.GC(t.Context(), api.GCRequest{DryRun: true}); err != nil || !r.DryRun {
		t.Errorf("gc: %+v, %v", r, err)
	}
	if e, err := w.Environments(t.Context()); err != nil || e == nil || len(e) != 0 {
		t.Errorf("environments: %+v, %v", e, err)
	}
}

// What the server signs can be checked by who has nothing but the log's key.
func TestLog(t *testing.T) {
	w := newWorld(t)
	public, err := notary.PublicKey(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	log, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	was, err := w.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddRelease(t.Context(), shop(t, "/bin/web", 1)); err != nil {
		t.Fatal(err)
	}
	text, err := w.Prove(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := record.ParseInclusionProof(text)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := p.Check(log); err != nil || c.Size != 1 || !strings.Contains(string(p.Leaf), "release.added") {
		t.Errorf("%+v, %s, %v", c, p.Leaf, err)
	}
	if _, err := w.Prove(t.Context(), 7); fault.Of(err).Kind != fault.NotFound {
		t.Errorf("an entry that is not there: %v", err)
	}
	a := record.Auditor{Source: w.Log(t.Context()), Log: log}
	now, finding, err := a.Latest()
	if err != nil || finding != nil || now.Size != 1 {
		t.Fatalf("%+v, %+v, %v", now, finding, err)
	}
	if report, err := a.Audit(now.Checkpoint); err != nil || !report.OK() || report.Entries != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	earlier, err := record.OpenCheckpoint(was, log)
	if err != nil {
		t.Fatal(err)
	}
	if finding, err := a.Compare(now.Checkpoint, earlier); err != nil || finding != nil {
		t.Errorf("%+v, %v", finding, err)
	}
}

// Signed statements become leaves of the record, and their proofs what the bundles
// carry, all by one checkpoint; with one that nobody signed none does.
func TestLogStatements(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := trust.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for _, name := range []string{"signature", "provenance", "spdx"} {
		kind, _ := trust.KindOf(name)
		s, err := trust.NewStatement(kind, "", digest.FromString("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := trust.Sign(s, key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := b.LogEntry(public)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	texts, err := w.LogStatements(t.Context(), leaves)
	if err != nil {
		t.Fatal(err)
	}
	var checkpoint []byte
	for i, text := range texts {
		p, err := record.ParseInclusionProof(text)
		if err != nil || !bytes.Equal(p.Leaf, leaves[i]) || p.Index != int64(i) {
			t.Errorf("%+v, %v", p, err)
		}
		if i > 0 && !bytes.Equal(checkpoint, p.Checkpoint) {
			t.Error("the proofs are by different checkpoints")
		}
		checkpoint = p.Checkpoint
	}
	var told []record.Entry
	if err := w.Entries(t.Context(), api.EntriesQuery{To: -1}, func(e record.Entry) error { told = append(told, e); return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"key": string(public.ID()), "statement": "0", "statements": "3"}
	if len(told) != 1 || told[0].Kind != "statement.logged" || told[0].Actor != me(t) || !maps.Equal(told[0].Data, want) {
		t.Errorf("%+v", told)
	}
	forged := bytes.Replace(leaves[0], []byte(`"digest":"`), []byte(`"digest":"A`), 1)
	for _, bad := range [][]byte{nil, []byte("{}"), forged, append(leaves[0], ' ')} {
		if _, err := w.LogStatements(t.Context(), [][]byte{leaves[1], bad}); fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := w.LogStatements(t.Context(), nil); fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid {
		t.Errorf("none: %v", err)
	}
	if report, err := w.VerifyLog(t.Context()); err != nil || !report.OK() || report.Entries != 4 {
		t.Errorf("%+v, %v", report, err)
	}
}
