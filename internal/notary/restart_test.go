package notary

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// A server that comes back to another database than the one that it signed notices,
// whatever the database says of itself.
func TestRestart(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, p *place)
		want string // verdict; empty: it goes on
	}{
		"the same":     {func(*testing.T, *place) {}, ""},
		"it grew":      {func(t *testing.T, p *place) { p.append(t, "more", 3) }, ""},
		"rolled back":  {func(t *testing.T, p *place) { p.restore(t, filepath.Join(p.dir, "yesterday")) }, "rolled-back"},
		"an empty one": {func(t *testing.T, p *place) { p.restore(t, os.DevNull) }, "rolled-back"},
		"another future": {func(t *testing.T, p *place) {
			p.restore(t, filepath.Join(p.dir, "yesterday"))
			p.append(t, "forged", 20)
		}, "forked"},
		"another key": {func(t *testing.T, p *place) {
			if _, _, err := newKey(p.dir, "host"); err != nil {
				t.Fatal(err)
			}
		}, "unsigned"},
		"no key": {func(t *testing.T, p *place) { remove(t, p, keyFile) }, "lost"},
		"a damaged memory": {func(t *testing.T, p *place) {
			raw, err := os.ReadFile(filepath.Join(p.dir, checkpointFile))
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)/2] ^= 1
			if err := os.WriteFile(filepath.Join(p.dir, checkpointFile), raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "unsigned"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.append(t, "early", 5)
			p.backup(t, filepath.Join(p.dir, "yesterday"))
			p.append(t, "late", 7)
			n := p.notary(t, p.config())
			if got := n.Latest(); got.Size != 12 || !strings.HasPrefix(got.Origin, "ashlar-") || !strings.HasSuffix(got.Origin, ".host") {
				t.Fatalf("signed %+v", got)
			}
			c.do(t, p)
			_, err := Open(t.Context(), p.config())
			if c.want != "" {
				refused(t, err, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func remove(t *testing.T, p *place, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestKeyIsSecretAndStays(t *testing.T) {
	p := newPlace(t)
	first := p.notary(t, p.config()).Latest()
	info, err := os.Stat(filepath.Join(p.dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if again := p.notary(t, p.config()).Latest(); again.Origin != first.Origin {
		t.Errorf("the log was %s and is %s", first.Origin, again.Origin)
	}
	remove(t, p, publicFile)
	if _, err := Open(t.Context(), p.config()); fault.Of(err) == nil {
		t.Error("a log without a public key goes on")
	}
}

// Renewing is the way on after a loss: another log, that says which one ended, and
// the old one's promise kept as evidence.
func TestRenew(t *testing.T) {
	p := newPlace(t)
	p.append(t, "early", 5)
	p.backup(t, filepath.Join(p.dir, "yesterday"))
	p.append(t, "late", 7)
	old := p.notary(t, p.config()).Latest()
	p.restore(t, filepath.Join(p.dir, "yesterday"))
	data, err := Renew(t.Context(), p.config())
	if err != nil {
		t.Fatal(err)
	}
	if data["oldLog"] != old.Origin || data["oldSize"] != "12" || data["oldRoot"] != old.Root.String() || data["size"] != "5" || data["log"] == old.Origin {
		t.Errorf("%v", data)
	}
	if err := p.store.Append(t.Context(), []record.Entry{{Time: epoch, Actor: "somebody", Kind: "record.renewed", Data: data}}); err != nil {
		t.Fatal(err)
	}
	if now := p.notary(t, p.config()).Latest(); now.Origin != data["log"] || now.Size != 6 {
		t.Errorf("%+v", now)
	}
	kept, err := filepath.Glob(filepath.Join(p.dir, retiredDir, "*", "*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %v, %v", kept, err)
	}
	if slices.ContainsFunc(kept, func(path string) bool { return filepath.Base(path) == keyFile }) {
		t.Error("the private key of the log that ended is still there")
	}
	// And a log that was lost altogether.
	remove(t, p, keyFile)
	if _, err := Renew(t.Context(), p.config()); err != nil {
		t.Fatal(err)
	}
	p.notary(t, p.config())
}

func TestPublish(t *testing.T) {
	p := newPlace(t)
	w, down := newFakeWitness(t, "w.example/1"), newFakeWitness(t, "w.example/2")
	down.fail = os.ErrDeadlineExceeded
	c := p.config()
	c.Witnesses = []Witness{w, down}
	n := p.notary(t, c)
	p.append(t, "x", 3)
	now := publish(t, n)
	if now.Size != 3 || len(now.Cosignatures) != 1 || now.Cosignatures[0].Witness != "w.example/1" {
		t.Errorf("%+v", now)
	}
	// The witness that was away is asked again, the other gets a proof from what it knows.
	down.fail = nil
	if now = publish(t, n); len(now.Cosignatures) != 2 {
		t.Errorf("%+v", now)
	}
	if !slices.Equal(w.asks, []int64{0, 0, 3}) {
		t.Errorf("the witness was asked from %v", w.asks)
	}
	// Nothing new, nothing to do.
	if publish(t, n); len(w.asks) != 3 {
		t.Errorf("the witness was asked from %v", w.asks)
	}
	p.append(t, "y", 2)
	proof, err := n.Prove(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := proof.Check(n.verifier); err != nil || got.Size != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n.Prove(t.Context(), 5); fault.Of(err) == nil || fault.Of(err).Kind != fault.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := n.Consistency(t.Context(), 9); fault.Of(err) == nil || fault.Of(err).Kind != fault.NotFound {
		t.Errorf("%v", err)
	}
}
