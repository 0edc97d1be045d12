package trustroot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// versions makes a trust root with so many versions, and gives the files of each.
func versions(t *testing.T, n int) [][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := trust.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := trust.Root{Expires: time.Now().Add(time.Hour), Keys: map[trust.KeyID]trust.Key{public.ID(): trust.NewKey(public, "root")}, Logs: map[string]trust.Log{},
		Roles: map[trust.Role]trust.Holders{trust.RoleRoot: {KeyIDs: []trust.KeyID{public.ID()}, Threshold: 1}}}
	var chain *trust.Chain
	var out [][]byte
	for range n {
		if chain, err = chain.Extend(r, []crypto.Signer{key}, rand.Reader); err != nil {
			t.Fatal(err)
		}
		text, err := chain.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	return out
}

func put(t *testing.T, dir string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, Name), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, what string, err error, verdict string) {
	t.Helper()
	if err == nil || fault.Of(err).Kind != fault.Refused || !strings.Contains(strings.Join(fault.Of(err).Details, " "), verdict) {
		t.Errorf("%s: %v, want the verdict %s", what, err, verdict)
		return
	}
	t.Attr("refused", verdict+" <- "+what)
}

// An older file, another or none is refused, by this process and the next.
func TestRolledBack(t *testing.T) {
	mine, other := versions(t, 3), versions(t, 4)
	dir := t.TempDir()
	first := New(dir)
	if c, err := first.Chain(); c != nil || err != nil {
		t.Fatalf("without a file: %v, %v", c, err)
	}
	for i, text := range mine { // a newer file is seen without being told
		put(t, dir, text)
		if c, err := first.Chain(); err != nil || c.Versions() != i+1 {
			t.Fatalf("version %d: %v, %v", i+1, c, err)
		}
	}
	for _, f := range []*File{first, New(dir)} {
		put(t, dir, mine[1])
		_, err := f.Chain()
		refused(t, "an older one", err, "rolled-back")
		put(t, dir, other[3])
		_, err = f.Chain()
		refused(t, "another", err, "other-root")
		put(t, dir, mine[2][:len(mine[2])-30])
		_, err = f.Chain()
		refused(t, "half of it", err, "malformed")
		if err := os.Remove(filepath.Join(dir, Name)); err != nil {
			t.Fatal(err)
		}
		_, err = f.Chain()
		refused(t, "none", err, "rolled-back")
		put(t, dir, mine[2])
		if c, err := f.Chain(); err != nil || c.Versions() != 3 {
			t.Errorf("the right one again: %v, %v", c, err)
		}
	}
}

func TestInstall(t *testing.T) {
	mine, other := versions(t, 3), versions(t, 2)
	f := New(t.TempDir())
	told := 0
	install := func(text []byte) (*trust.Chain, error) {
		return f.Install(text, func(*trust.Chain) error { told++; return nil })
	}
	if c, err := install(mine[1]); err != nil || c.Versions() != 2 || told != 1 {
		t.Fatalf("the first: %v, %v, told %d times", c, err, told)
	}
	if c, err := install(mine[1]); err != nil || c.Versions() != 2 || told != 1 {
		t.Errorf("the same again: %v, %v, told %d times", c, err, told)
	}
	_, err := install(mine[0])
	refused(t, "an older one", err, "rolled-back")
	_, err = install(other[1])
	refused(t, "another", err, "other-root")
	_, err = install([]byte("{}"))
	refused(t, "none", err, "malformed")
	if _, err := f.Install(mine[2], func(*trust.Chain) error { return errors.New("no") }); err == nil {
		t.Error("installed though it could not be recorded")
	}
	if c, err := f.Chain(); err != nil || c.Versions() != 2 {
		t.Errorf("after refusals: %v, %v", c, err)
	}
	if c, err := install(mine[2]); err != nil || c.Versions() != 3 || told != 2 {
		t.Errorf("the next: %v, %v, told %d times", c, err, told)
	}
	put(t, f.dir, mine[0]) // somebody spoils it
	if _, err := install(mine[1]); err == nil {
		t.Error("an older one was installed in place of a spoilt one")
	}
	if c, err := install(mine[2]); err != nil || c.Versions() != 3 || told != 3 {
		t.Errorf("in place of a spoilt one: %v, %v, told %d times", c, err, told)
	}
}
