package cli

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// publicKeys are the public keys of a test, by the name of their files.
type publicKeys map[string]trust.PublicKey

func (k publicKeys) parts() KeyParts {
	return KeyParts{Public: func(path string) (trust.PublicKey, error) { return k[path], nil }}
}

// Keys are exchanged and logs named again, and what is asked for does not become less
// unless somebody says so.
func TestTrustIsNotLoweredUnseen(t *testing.T) {
	keys := publicKeys{}
	for _, name := range []string{"anna", "boris", "carla"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if keys[name], err = trust.NewPublicKey(crypto.PublicKey(key.Public())); err != nil {
			t.Fatal(err)
		}
	}
	p := &program{parts: Parts{Keys: keys.parts()}}
	_, log, err := note.GenerateKey(rand.Reader, "log.example")
	if err != nil {
		t.Fatal(err)
	}
	witness := record.WitnessFromSeed("w.example/1", make([]byte, 32)).PublicKey()
	made := func() trust.Root {
		r := trust.Root{Keys: map[trust.KeyID]trust.Key{}, Roles: map[trust.Role]trust.Holders{}, Logs: map[string]trust.Log{}}
		if err := p.change(&r, trustChange{add: []string{"approver=anna", "approver=boris"}, threshold: []string{"approver=2"}, logs: []string{log}, witnesses: []string{witness}, quorum: 1}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, c := range map[string]struct {
		change    trustChange
		threshold int    // 0: the role is gone
		want      string // of the refusal
	}{
		"one is exchanged":        {trustChange{remove: []string{"approver=anna"}, add: []string{"approver=carla"}}, 2, ""},
		"one is taken away":       {trustChange{remove: []string{"approver=anna"}}, 0, "the role approver would have 1 keys, of which 2 are needed"},
		"one, and it is said":     {trustChange{remove: []string{"approver=anna"}, threshold: []string{"approver=1"}}, 1, ""},
		"both are exchanged":      {trustChange{remove: []string{"approver=anna", "approver=boris"}, add: []string{"approver=carla"}}, 0, "would have 1 keys, of which 2"},
		"the role is given up":    {trustChange{remove: []string{"approver=anna", "approver=boris"}}, 0, ""},
		"a role that nobody has":  {trustChange{threshold: []string{"aprover=1"}}, 0, "the role aprover would have 0 keys"},
		"the log is named again":  {trustChange{logs: []string{log}}, 2, ""},
		"with a witness too many": {trustChange{logs: []string{log}, witnesses: []string{witness}, quorum: 2}, 2, ""}, // Validate refuses it
	} {
		r := made()
		err := p.change(&r, c.change)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil || r.Roles[trust.RoleApprover].Threshold != c.threshold {
			t.Errorf("%s: %+v, %v", name, r.Roles, err)
		}
		if l := r.Logs["log.example"]; l.Quorum < 1 || len(l.Witnesses) != 1 {
			t.Errorf("%s: the log is %+v", name, l)
		}
	}
}
