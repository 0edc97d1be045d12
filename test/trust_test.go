package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Keys are exchanged and revoked, and the trust root expires and is put back: what was
// said and recorded before stays proven, in a file of before and by the server; what a
// key says after its time is not believed.
func TestKeysExchanged(t *testing.T) {
	a := newHost(t).guest()
	t.Setenv("ASHLAR_KEYS", filepath.Join(a.dir, "keys"))
	if err := os.Mkdir(filepath.Join(a.dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root", "keys/release", "keys/builder", "next"} {
		a.ashlar("key", "new", "--no-passphrase", name).ok()
	}
	a.trusts("init", "trust.json", "--add", "root=root", "--add", "release=keys/release", "--add", "builder=keys/builder")
	first := a.read("trust.json")
	a.deploy()
	a.ashlar("proof", a.env, "--to", "before").ok()
	const refused = "not proven"
	verified := func(what string) result {
		return a.ashlar("verify", what, "--trust-root", "trust.json", "--require", "provenance")
	}
	refuses := func(word, what string) {
		t.Helper()
		verified(a.env).failed(fault.Refused.ExitCode(), refused, "failed: provenance", "verdict: "+word)
		verified("before").ok().says("by builder (")
		t.Attr("refused", word+" <- "+what)
	}

	// The builder's key is exchanged.
	a.trusts("rotate", "trust.json", "--remove", "builder=builder", "--add", "builder=next", "--from-index", a.here())
	verified(a.env).ok().says("by builder (")
	verified("before").ok().says("by builder (")
	a.rebuilt("1")
	refuses("wrong-role", "a key whose role was taken away signs the next release")
	for _, ext := range []string{".key", ".pub"} {
		if err := os.Rename(filepath.Join(a.dir, "next"+ext), filepath.Join(a.dir, "keys", "builder"+ext)); err != nil {
			t.Fatal(err)
		}
	}
	a.rebuilt("2")
	verified(a.env).ok().says("by next (")

	// That one is stolen.
	a.trusts("rotate", "trust.json", "--revoke", "next", "--reason", "the laptop was stolen", "--since", a.here())
	verified(a.env).ok().says("by next (")
	a.rebuilt("3")
	refuses("revoked", "a key that was revoked signs the next release")

	// The trust root is put back to where nobody was revoked.
	last := a.read("trust.json")
	a.write("older.json", first)
	a.ashlar("trust", "install", "older.json").failed(fault.Refused.ExitCode(), "older.json", "verdict: rolled-back")
	a.ashlar("trust", "check", "older.json", "--before", "trust.json").failed(fault.Refused.ExitCode(), "verdict: rolled-back")
	t.Attr("refused", "rolled-back <- a trust root of before a revocation")

	// It expires, and goes on.
	a.trusts("rotate", "trust.json", "--expires", "1s")
	a.await("the trust root to expire", func() error {
		r := verified("before")
		return missing(r.code == fault.Refused.ExitCode() && strings.Contains(r.stderr, "verdict: expired"), r.String())
	})
	t.Attr("refused", "expired <- a proof by keys of a trust root that has expired")
	a.write("trust.json", last)
	a.ashlar("trust", "install", "trust.json").failed(fault.Refused.ExitCode(), "verdict: rolled-back")
	a.ashlar("trust", "rotate", "trust.json", "--sign", "root.key", "--expires", "1h").ok()
	a.ashlar("trust", "install", "trust.json").failed(fault.Refused.ExitCode(), "verdict: other-root") // it went on from another
	verified("before").ok().says("by builder (")
}

// rebuilt changes the program, so that there is another artifact to sign, and deploys.
func (a *app) rebuilt(what string) {
	a.t.Helper()
	a.write("cmd/guest/more.go", "package main\n\nfunc init() { println(\""+what+"\") }\n")
	a.deploy()
}

// here is the place in the record that the next entry will have, as trust roots name it.
func (a *app) here() string {
	a.t.Helper()
	var audit struct {
		Size int64 `json:"size"`
	}
	a.ashlar("log", "verify", "-o", "json").ok().into(&audit)
	name, _, _ := strings.Cut(a.ashlar("log", "key").ok().stdout, "+")
	return name + "=" + strconv.FormatInt(audit.Size, 10)
}

func (a *app) read(name string) string {
	a.t.Helper()
	text, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}
