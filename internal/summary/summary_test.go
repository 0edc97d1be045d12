package summary

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

var (
	midnight = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	first    = digest.FromString("release 1")
	second   = digest.FromString("release 2")
	web, db  = digest.FromString("web"), digest.FromString("db")
	law      = digest.FromString("policy")
	shop     = rollout.Key{App: "shop", Env: "production"}
)

// world is a record, and what is kept beside releases and artifacts.
type world struct {
	*testing.T
	entries  []record.Entry
	told     map[string]int64
	grown    chan struct{}
	facts    map[digest.Digest][]byte
	attached map[digest.Digest][][]byte
	key      crypto.Signer
	broken   error // of the key
	full     error // nothing can be attached
}

func newWorld(t *testing.T) *world {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &world{T: t, told: map[string]int64{}, grown: make(chan struct{}), facts: map[digest.Digest][]byte{}, attached: map[digest.Digest][][]byte{}, key: key}
}

func (w *world) Entries(_ context.Context, env rollout.Key, from, to int64) ([]record.Entry, error) {
	var out []record.Entry
	for _, e := range w.entries {
		if e.Index >= from && e.Index < to && (env == rollout.Key{} || e.App == env.App && e.Env == env.Env) {
			out = append(out, e)
		}
	}
	return out, nil
}

func (w *world) Head(context.Context) (int64, tlog.Hash, error) {
	return int64(len(w.entries)), tlog.Hash{}, nil
}
func (w *world) Appended() <-chan struct{} { return w.grown }
func (w *world) Told(context.Context, rollout.Key) (map[string]int64, error) {
	return w.told, nil
}
func (w *world) Tell(_ context.Context, env rollout.Key, reader string, next int64, _ []record.Entry) error {
	if env != (rollout.Key{}) {
		w.Errorf("%s is told as a webhook of %s would be", reader, env)
	}
	w.told[reader] = next
	return nil
}

// summaries are those of a server that has just started.
func (w *world) summaries() *Summaries {
	return New(Config{
		Store: w, Log: slog.New(slog.DiscardHandler), Verifier: "ashlar://log.example",
		Key: func() (crypto.Signer, error) { return w.key, w.broken },
		Facts: func(d digest.Digest) ([]byte, error) {
			raw, ok := w.facts[d]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return raw, nil
		},
		Attached: func(about digest.Digest) ([][]byte, error) { return w.attached[about], nil },
		Record: func(_ context.Context, leaf []byte, e record.Entry) (trust.Logged, error) {
			if _, err := trust.CheckLogEntry(leaf); err != nil {
				w.Errorf("what is recorded: %v", err)
			}
			w.append(e)
			return trust.Logged{LogID: make([]byte, 32), Body: leaf, Proof: record.InclusionProof{Index: e.Index, Checkpoint: []byte("log.example\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— x y\n")}}, nil
		},
		Attach: func(_ context.Context, release digest.Digest, artifacts []digest.Digest, bundle []byte) error {
			if w.full != nil {
				return w.full
			}
			for _, d := range append(artifacts, release) {
				w.attached[d] = append(w.attached[d], bundle)
			}
			return nil
		},
		Pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
}

func (w *world) append(e record.Entry) int64 {
	e.Index = int64(len(w.entries))
	e.Time = midnight.Add(time.Duration(e.Index) * time.Second)
	if e.App == "" {
		e.App, e.Env = shop.App, shop.Env
	}
	w.entries = append(w.entries, e)
	return e.Index
}

// judged appends a verdict.
func (w *world) judged(kind string, release digest.Digest, number int, more ...string) int64 {
	w.Helper()
	f := policy.Facts{App: shop.App, Env: shop.Env, Kind: policy.Deploy, Now: midnight.Add(time.Duration(len(w.entries)) * time.Second), Release: policy.Release{
		Digest: string(release), Number: 7, Statements: []policy.Statement{{Kind: "signature", Digest: string(digest.FromString("signature"))}},
		Components: []policy.Component{
			{Name: "web", Artifact: string(web), Statements: []policy.Statement{{Kind: "provenance", Digest: string(digest.FromString("provenance"))}}},
			{Name: "db", Artifact: string(db), Statements: []policy.Statement{{Kind: "provenance", Digest: string(digest.FromString("provenance"))}}},
		},
	}}
	raw, err := f.Marshal()
	if err != nil {
		w.Fatal(err)
	}
	d := digest.FromBytes(raw)
	w.facts[d] = raw
	data := map[string]string{"policy": string(law), "facts": string(d)}
	for i := 0; i+1 < len(more); i += 2 {
		data[more[i]] = more[i+1]
	}
	return w.append(record.Entry{Kind: kind, Release: release, Rollout: number, Data: data})
}

// look reads on, and gives what there is beside something, in words.
func (w *world) look(s *Summaries, about digest.Digest) []string {
	w.Helper()
	if err := s.Look(w.Context()); err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, raw := range w.attached[about] {
		b, err := trust.ParseBundle(raw)
		if err != nil {
			w.Fatal(err)
		}
		statement, err := trust.ParseStatement(b.Payload)
		if err != nil || !statement.About(about) || statement.PredicateType != "https://slsa.dev/verification_summary/v1" {
			w.Fatalf("%v %+v", err, statement)
		}
		p, err := policy.ParseSummary(statement.Predicate)
		if err != nil {
			w.Fatal(err)
		}
		words := fmt.Sprintf("%s entry %d at %s", p.Result, p.Verdict.Entry, p.TimeVerified.Format(time.TimeOnly))
		if !p.Verdict.Live.IsZero() {
			words += " live " + p.Verdict.Live.Format(time.TimeOnly)
		}
		if len(p.Verdict.Broken) > 0 {
			words += " broken by " + strings.Join(p.Verdict.Broken, "+")
		}
		out = append(out, words)
	}
	return out
}

func (w *world) want(what string, got []string, want ...string) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Errorf("%s: %q, want %q", what, got, want)
	}
}

// What is said of which entries: each verdict once, and what was admitted again when it is
// live; of artifacts that they passed, once for each policy.
func TestSummaries(t *testing.T) {
	w := newWorld(t)
	s := w.summaries()
	w.judged("admission.refused", first, 0)
	w.judged("admission.refused", first, 0) // somebody tries again
	w.want("refused twice", w.look(s, first), "FAILED entry 0 at 00:00:00")
	w.want("its artifacts", w.look(s, web))

	w.append(record.Entry{Kind: "rollout.begun", Release: first, Rollout: 1})
	in := w.judged("admission.admitted", first, 1)
	w.append(record.Entry{Kind: "rollout.live", Release: first, Rollout: 1})
	admitted := fmt.Sprintf("PASSED entry %d at 00:00:%02d", in, in)
	live := fmt.Sprintf("%s live 00:00:%02d", admitted, in+1)
	w.want("admitted and live", w.look(s, first), "FAILED entry 0 at 00:00:00", admitted, live)
	w.want("an artifact", w.look(s, web), admitted)
	if said := w.entries[len(w.entries)-1]; said.Kind != "summary.signed" || said.Data["result"] != policy.Passed || said.Release != first || said.Env != "production" {
		t.Errorf("the record tells %+v", said)
	}

	// The next release has the same artifacts; another glass is broken.
	w.append(record.Entry{Kind: "rollout.begun", Release: second, Rollout: 2})
	in2 := w.judged("admission.admitted", second, 2)
	w.append(record.Entry{Kind: "rollout.put-back", Release: second, Rollout: 2})
	glass := w.judged("admission.admitted", second, 3, "breakGlass", "anna, boris")
	w.append(record.Entry{Kind: "rollout.live", Release: second, Rollout: 3})
	w.want("the second", w.look(s, second), fmt.Sprintf("PASSED entry %d at 00:00:%02d", in2, in2), fmt.Sprintf("FAILED entry %d at 00:00:%02d broken by anna+boris", glass, glass),
		fmt.Sprintf("FAILED entry %d at 00:00:%02d live 00:00:%02d broken by anna+boris", glass, glass, glass+1))
	w.want("the artifact that it shares", w.look(s, db), admitted)

	// Where nobody judges nothing is said.
	w.append(record.Entry{Kind: "rollout.begun", Release: second, Rollout: 4})
	w.append(record.Entry{Kind: "rollout.live", Release: second, Rollout: 4})
	if got := w.look(s, second); len(got) != 3 {
		t.Errorf("of a rollout that nobody judged: %q", got)
	}
}

// A predicate has what the specification asks for.
func TestPredicate(t *testing.T) {
	w := newWorld(t)
	w.judged("admission.admitted", first, 1)
	w.look(w.summaries(), first)
	b, err := trust.ParseBundle(w.attached[first][0])
	if err != nil {
		t.Fatal(err)
	}
	statement, err := trust.ParseStatement(b.Payload)
	if err != nil {
		t.Fatal(err)
	}
	facts := ""
	for d := range w.facts {
		facts = string(d)
	}
	hex := func(what string) string { return digest.FromString(what).Encoded() }
	input := func(kind string) string {
		return `{"name":"` + kind + `","digest":{"sha256":"` + hex(kind) + `"},"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`
	}
	want := `{"verifier":{"id":"ashlar://log.example"},"timeVerified":"2030-01-01T00:00:00Z","resourceUri":"ashlar:shop/production",` +
		`"policy":{"uri":"ashlar:shop/production/policy","digest":{"sha256":"` + law.Encoded() + `"}},"inputAttestations":[` + input("signature") + "," + input("provenance") + `],` +
		`"verificationResult":"PASSED","verifiedLevels":["SLSA_BUILD_LEVEL_1"],"slsaVersion":"1.0",` +
		`"https://github.com/ashlar-infra/ashlar/predicate/summary/v1":{"release":"` + string(first) + `","number":7,"facts":"` + facts + `","entry":0}}`
	if got := string(statement.Predicate); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(statement.Subject) != 3 || statement.Subject[1].Name != "shop/web" {
		t.Errorf("it is about %+v", statement.Subject)
	}
}

// A server that was killed goes on where it was: nothing is said twice, or forgotten.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.append(record.Entry{Kind: "rollout.begun", Release: first, Rollout: 1})
	w.judged("admission.admitted", first, 1)
	w.look(w.summaries(), first)
	w.append(record.Entry{Kind: "rollout.live", Release: first, Rollout: 1})
	if got := w.look(w.summaries(), first); len(got) != 2 || !strings.Contains(got[1], "live") {
		t.Errorf("it does not know any more what was admitted: %q", got)
	}
	clear(w.told) // it was killed after the statement was kept, and before that was remembered
	if got := w.look(w.summaries(), first); len(got) != 2 {
		t.Errorf("it is said twice: %q", got)
	}
	w.judged("admission.admitted", second, 2)
	w.full = errors.New("no space left")
	s := w.summaries()
	if err := s.Look(t.Context()); !errors.Is(err, w.full) {
		t.Errorf("%v", err)
	}
	w.full = nil
	w.want("once there is space", w.look(s, second), "PASSED entry 5 at 00:00:05")
}

// Without a key nothing is said, then or later; a key that does not work is waited for.
func TestNoKey(t *testing.T) {
	w := newWorld(t)
	key := w.key
	w.key = nil
	s := w.summaries()
	w.judged("admission.admitted", first, 1)
	w.want("without a key", w.look(s, first))
	w.key = key
	w.want("with one, later", w.look(s, first))
	w.want("and by the next server", w.look(w.summaries(), first))
	w.judged("admission.admitted", second, 2)
	w.broken = errors.New("the token is not there")
	if err := s.Look(t.Context()); !errors.Is(err, w.broken) {
		t.Errorf("%v", err)
	}
	w.broken = nil
	if got := w.look(s, second); len(got) != 1 {
		t.Errorf("once the token is there: %q", got)
	}
	delete(w.facts, digest.Digest(w.entries[1].Data["facts"]))
	clear(w.facts)
	w.append(record.Entry{Kind: "admission.admitted", Release: first, Rollout: 3, Data: map[string]string{"facts": string(digest.FromString("gone"))}})
	w.want("without facts", w.look(s, first))
}

// A bundle that somebody put there in our name keeps nothing from being said.
func TestFalseWitness(t *testing.T) {
	w := newWorld(t)
	w.judged("admission.admitted", first, 1)
	w.look(w.summaries(), first)
	b, err := trust.ParseBundle(w.attached[first][0])
	if err != nil {
		t.Fatal(err)
	}
	b.Signature[len(b.Signature)-1] ^= 1
	forged, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	clear(w.told)
	w.attached = map[digest.Digest][][]byte{first: {forged}, web: {forged}}
	w.look(w.summaries(), first)
	if len(w.attached[first]) != 2 || len(w.attached[web]) != 2 {
		t.Errorf("%d and %d bundles", len(w.attached[first]), len(w.attached[web]))
	}
}

// Run says what is appended while it runs, tells what keeps it, and ends with its context.
func TestRun(t *testing.T) {
	w := newWorld(t)
	w.judged("admission.admitted", first, 1)
	w.broken = errors.New("the token is not there")
	ctx, cancel := context.WithCancel(t.Context())
	s := w.summaries()
	var trouble string
	s.Config.Pause = func(context.Context, time.Duration) error {
		trouble, w.broken = s.Trouble(), nil
		return nil
	}
	attach := s.Config.Attach
	s.Config.Attach = func(ctx context.Context, release digest.Digest, artifacts []digest.Digest, bundle []byte) error {
		defer cancel()
		return attach(ctx, release, artifacts, bundle)
	}
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if len(w.attached[first]) != 1 || !strings.HasSuffix(trouble, ": the token is not there") {
		t.Errorf("%d bundles; trouble %q", len(w.attached[first]), trouble)
	}
}
