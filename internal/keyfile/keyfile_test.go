package keyfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func secret(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

func TestKeyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "release")
	made, err := New(name, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name + ".key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	signer, err := Signer(name+".key", secret("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := trust.NewPublicKey(signer.Public()); err != nil || got.ID() != made.ID() {
		t.Errorf("opened %s, %v; made %s", got.ID(), err, made.ID())
	}
	for _, path := range []string{name, name + ".key", name + ".pub"} {
		if got, err := Public(path); err != nil || got.ID() != made.ID() {
			t.Errorf("%s: %v", path, err)
		}
	}
	if names, err := List(filepath.Dir(name)); err != nil || len(names) != 1 || names[0] != name {
		t.Errorf("%q, %v", names, err)
	}
	for what, c := range map[string]struct {
		do   func() error
		kind fault.Kind
	}{
		"another passphrase":  {func() error { _, err := Signer(name+".key", secret("guess")); return err }, fault.Refused},
		"a public key":        {func() error { _, err := Signer(name+".pub", nil); return err }, fault.Invalid},
		"no file":             {func() error { _, err := Signer(name, nil); return err }, fault.NotFound},
		"a second key":        {func() error { _, err := New(name, []byte("x")); return err }, fault.Conflict},
		"an empty passphrase": {func() error { _, err := New(name+"2", []byte{}); return err }, fault.Invalid},
		"no public key":       {func() error { _, err := Public(name + "x"); return err }, fault.NotFound},
	} {
		if err := c.do(); fault.Of(err) == nil || fault.Of(err).Kind != c.kind {
			t.Errorf("%s: %v, want %s", what, err, c.kind)
		}
	}
	if err := os.Remove(name + ".pub"); err != nil {
		t.Fatal(err)
	}
	if _, err := New(name, []byte("other")); fault.Of(err).Kind != fault.Conflict {
		t.Errorf("over a private key alone: %v", err)
	}
	if _, err := os.Stat(name + ".pub"); err == nil {
		t.Error("the public half of the key that was refused stays")
	}
	text, err := os.ReadFile(name + ".key")
	if err != nil || !strings.HasPrefix(string(text), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----") {
		t.Errorf("%v\n%s", err, text)
	}
}
