package notary

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/store"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// place is a state directory with a real database.
type place struct {
	dir   string
	store *store.Store
	now   time.Time
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: t.TempDir(), now: epoch}
	p.open(t)
	t.Cleanup(func() { p.store.Close() }) //nolint:errcheck // closed twice by some tests
	return p
}

func (p *place) open(t *testing.T) {
	t.Helper()
	s, err := store.Open(t.Context(), p.db())
	if err != nil {
		t.Fatal(err)
	}
	p.store = s
}

func (p *place) db() string { return filepath.Join(p.dir, "ashlar.db") }

// append adds entries that say what.
func (p *place) append(t *testing.T, what string, n int) {
	t.Helper()
	var entries []record.Entry
	for i := range n {
		entries = append(entries, record.Entry{Time: epoch, Actor: "somebody", Kind: "test", Reason: fmt.Sprintf("%s %d", what, i)})
	}
	if err := p.store.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
}

func (p *place) config() Config {
	return Config{Dir: p.dir, Host: "host", Record: p.store, Now: func() time.Time { return p.now }, Log: slog.New(slog.DiscardHandler), Every: time.Hour}
}

func (p *place) notary(t *testing.T, c Config) *Notary {
	t.Helper()
	n, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// copyTo copies the database as a backup does, and back.
func (p *place) backup(t *testing.T, to string) {
	t.Helper()
	if err := p.store.Backup(t.Context(), to); err != nil {
		t.Fatal(err)
	}
}

func (p *place) restore(t *testing.T, from string) {
	t.Helper()
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.RemoveAll(p.db() + suffix); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(p.db(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.open(t)
}

func publish(t *testing.T, n *Notary) record.Seen {
	t.Helper()
	now, err := n.Publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// refused says that an error is the refusal to go on, with that verdict.
func refused(t *testing.T, err error, verdict string) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Kind != fault.Refused || len(f.Details) == 0 || f.Details[0] != "verdict: "+verdict || f.Fix == "" {
		t.Errorf("got %v, want a refusal with the verdict %s", err, verdict)
		return
	}
	t.Attr("refused", verdict+" <- "+t.Name())
}

// fakeWitness answers as it is told.
type fakeWitness struct {
	*record.Witness
	key  note.Verifier
	fail error
	asks []int64
}

func newFakeWitness(t *testing.T, name string) *fakeWitness {
	t.Helper()
	w := record.WitnessFromSeed(name, make([]byte, 32))
	key, err := record.NewWitnessVerifier(w.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return &fakeWitness{Witness: w, key: key}
}

func (f *fakeWitness) Key() note.Verifier { return f.key }

func (f *fakeWitness) Cosign(_ context.Context, signed []byte, known *int64, prove func(int64) (record.ConsistencyProof, error)) ([]byte, error) {
	f.asks = append(f.asks, *known)
	if f.fail != nil {
		return nil, f.fail
	}
	if _, err := prove(*known); err != nil {
		return nil, err
	}
	text, _, _ := cutNote(signed)
	c, err := record.ParseCheckpoint(text)
	if err != nil {
		return nil, err
	}
	out, err := c.Sign(f.At(epoch))
	if err != nil {
		return nil, err
	}
	_, lines, _ := cutNote(out)
	*known = c.Size
	return []byte(lines), nil
}
