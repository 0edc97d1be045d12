package secret

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var production = rollout.Key{App: "shop", Env: "production"}

// marker is a value that is nowhere else.
var marker = []byte("eich-meist-grau-07")

func newStore(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	return reopen(t, dir), dir
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(filepath.Join(dir, "secrets"), filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func set(t *testing.T, s *Store, key rollout.Key, name string, value []byte) Version {
	t.Helper()
	v, err := s.Seal(key, name, value)
	if err == nil {
		err = s.Commit(v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func secretOf(v Version) release.Secret {
	return release.Secret{Name: v.Name, Version: v.Number, Sealed: v.Sealed}
}

func wantFault(t *testing.T, err error, kind fault.Kind, says string) {
	t.Helper()
	if f := fault.Of(err); f == nil || f.Kind != kind || !strings.Contains(f.Error(), says) || f.Fix == "" && kind != fault.Invalid {
		t.Errorf("got %v, want a fault of kind %s that says %q and how to mend it", err, kind, says)
	}
	if err != nil && strings.Contains(err.Error(), string(marker)) {
		t.Errorf("the value is in an error: %v", err)
	}
}

// TestVersions holds that versions grow, are each what was set, also for another process,
// and that a removed number is never used again.
func TestVersions(t *testing.T) {
	s, dir := newStore(t)
	if list, err := s.List(production); err != nil || len(list) > 0 {
		t.Fatalf("List of nothing = %v, %v", list, err)
	}
	values := []string{"one\n", "two", string([]byte{0, 1, 0xff})}
	var made []Version
	for _, v := range values {
		made = append(made, set(t, s, production, "password", []byte(v)))
	}
	other := set(t, s, rollout.Key{App: "shop", Env: "staging"}, "password", []byte("one\n"))
	if other.Number != 1 || other.Sealed == made[0].Sealed {
		t.Errorf("another environment's is %+v", other)
	}
	s = reopen(t, dir)
	for i, v := range made {
		got, err := s.Get(t.Context(), production, secretOf(v))
		if err != nil || string(got) != values[i] || v.Number != i+1 {
			t.Errorf("version %d is %q, %v; want %q", v.Number, got, err, values[i])
		}
		if held, err := s.Holds(v.Sealed); err != nil || !held {
			t.Errorf("Holds = %v, %v", held, err)
		}
	}
	if got, err := s.Newest(t.Context(), production, "password"); err != nil || string(got) != values[2] {
		t.Errorf("the newest is %q, %v", got, err)
	}
	list, err := s.List(production)
	if diff := cmp.Diff(made, list, cmpopts.IgnoreFields(Version{}, "Set")); err != nil || diff != "" {
		t.Errorf("List: %v\n%s", err, diff)
	}
	for range 2 { // a removal may be repeated
		if err := s.Remove(made[2]); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Get(t.Context(), production, secretOf(made[2]))
	wantFault(t, err, fault.NotFound, "ashlar secret set production password")
	if got, err := s.Newest(t.Context(), production, "password"); err != nil || string(got) != "two" {
		t.Errorf("after the removal the newest is %q, %v", got, err)
	}
	if v := set(t, reopen(t, dir), production, "password", marker); v.Number != 4 {
		t.Errorf("the next version is %d, want 4", v.Number)
	}
	_, err = s.Newest(t.Context(), production, "nothing")
	wantFault(t, err, fault.NotFound, "shop/production has no secret nothing")
}

// TestCrash holds that a version is seen when it is committed and not before, and
// that nothing of a crash is in the way.
func TestCrash(t *testing.T) {
	s, dir := newStore(t)
	v, err := s.Seal(production, "password", marker)
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"secrets/shop/production/password", "."} {
		if err := os.WriteFile(filepath.Join(dir, half, halfMade), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, dir)
	if list, err := s.List(production); err != nil || len(list) > 0 {
		t.Errorf("List shows what was not committed: %v, %v", list, err)
	}
	if _, err := s.Newest(t.Context(), production, "password"); err == nil {
		t.Error("a version that was not committed is the newest")
	}
	pending, err := s.Pending()
	if diff := cmp.Diff([]Version{v}, pending, cmpopts.IgnoreFields(Version{}, "Set")); err != nil || diff != "" {
		t.Fatalf("Pending: %v\n%s", err, diff)
	}
	again, err := s.Seal(production, "password", marker)
	if err != nil || again.Number != 2 {
		t.Fatalf("beside one that is pending: %+v, %v", again, err)
	}
	if err := s.Drop(again); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a commit may be repeated
		if err := s.Commit(v); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Get(t.Context(), production, secretOf(v)); err != nil || !bytes.Equal(got, marker) {
		t.Errorf("after the commit: %q, %v", got, err)
	}
	if pending, err := s.Pending(); err != nil || len(pending) > 0 {
		t.Errorf("Pending after the commit: %v, %v", pending, err)
	}
	if err := s.Commit(again); err == nil {
		t.Error("a dropped version was committed")
	}
}

// TestNothingInTheClear holds that no file holds the value, and that nobody but the owner
// may read any of them.
func TestNothingInTheClear(t *testing.T) {
	s, dir := newStore(t)
	v := set(t, s, production, "password", marker)
	set(t, s, production, "password", append([]byte("more of "), marker...))
	if err := s.Remove(v); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		if d.IsDir() {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if bytes.Contains(text, marker) {
			t.Errorf("%s holds the value", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestTampering holds that other bytes, another place and another identity are found.
func TestTampering(t *testing.T) {
	s, dir := newStore(t)
	one, two := set(t, s, production, "one", marker), set(t, s, production, "two", []byte("other"))
	file := func(v Version) string { return filepath.Join(s.place(v.Key, v.Name), v.file()) }
	bytesOf, err := os.ReadFile(file(one))
	if err != nil {
		t.Fatal(err)
	}
	put := func(path string, b []byte) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, b, 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	flipped := bytes.Clone(bytesOf)
	flipped[len(flipped)-1] ^= 1
	put(file(one), flipped)
	_, err = s.Get(t.Context(), production, secretOf(one))
	wantFault(t, err, fault.Refused, "is damaged")

	put(file(one), bytesOf)
	moved := Version{Key: production, Name: "two", Number: two.Number, Sealed: one.Sealed}
	put(file(moved), bytesOf)
	_, err = s.Get(t.Context(), production, secretOf(moved))
	wantFault(t, err, fault.Refused, "does not open")

	_, err = s.Get(t.Context(), production, release.Secret{Name: "one", Version: 1, Sealed: digest.FromString("another server's")})
	wantFault(t, err, fault.NotFound, "no version 1 of secret one with the digest")

	if err := os.Remove(filepath.Join(dir, "identity")); err != nil {
		t.Fatal(err)
	}
	_, err = Open(filepath.Join(dir, "secrets"), filepath.Join(dir, "identity"))
	wantFault(t, err, fault.Unavailable, "the identity that opens the secrets is not there")
	stranger, strange := newStore(t)
	set(t, stranger, production, "one", []byte("x"))
	s, err = Open(filepath.Join(dir, "secrets"), filepath.Join(strange, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Get(t.Context(), production, secretOf(one))
	wantFault(t, err, fault.Refused, "does not open with this server's identity")
}

// TestIdentity shows which identity files are taken.
func TestIdentity(t *testing.T) {
	s, dir := newStore(t)
	set(t, s, production, "one", marker)
	path := filepath.Join(dir, "identity")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key := good[bytes.Index(good, []byte("AGE-SECRET-KEY-")):]
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		kind fault.Kind
		says string
	}{
		"readable by others": {string(good), 0o640, fault.Refused, "chmod 600"},
		"empty":              {"", 0o600, fault.Invalid, "not an identity"},
		"two keys":           {string(key) + string(key), 0o600, fault.Invalid, "not an identity"},
		"a broken key":       {string(key[:20]), 0o600, fault.Invalid, "not an identity"},
		"the key alone":      {string(key), 0o400, fault.Internal, ""},
	} {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(c.text), c.mode), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(filepath.Join(dir, "secrets"), path)
		if c.says == "" && err == nil {
			continue
		}
		if err == nil || strings.Contains(err.Error(), string(key[:20])) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantFault(t, err, c.kind, c.says)
	}
}

func TestRefused(t *testing.T) {
	s, _ := newStore(t)
	for name, c := range map[string]struct {
		key   rollout.Key
		name  string
		value []byte
	}{
		"empty":           {production, "one", nil},
		"too long":        {production, "one", make([]byte, MaxSize+1)},
		"a path":          {production, "../one", marker},
		"no name":         {production, "", marker},
		"an odd app":      {rollout.Key{App: "..", Env: "production"}, "one", marker},
		"no environment":  {rollout.Key{App: "shop"}, "one", marker},
		"capital letters": {production, "One", marker},
	} {
		_, err := s.Seal(c.key, c.name, c.value)
		wantFault(t, err, fault.Invalid, "")
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	set(t, s, production, "one", make([]byte, MaxSize))
}

// TestAgeOpensIt holds that the files are what the age program reads: losing Ashlar does
// not lose the secrets.
func TestAgeOpensIt(t *testing.T) {
	s, dir := newStore(t)
	v := set(t, s, production, "one", marker)
	key, err := os.Open(filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	identities, err := age.ParseIdentities(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := os.Open(filepath.Join(s.place(v.Key, v.Name), v.file()))
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	r, err := age.Decrypt(sealed, identities...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if want := "ashlar-secret/v1 shop/production/one/1\n" + string(marker); err != nil || string(got) != want {
		t.Errorf("age gives %q, %v", got, err)
	}
}

func FuzzFileName(f *testing.F) {
	for _, name := range []string{"1." + digest.FromString("x").Encoded() + ".age", ".2." + digest.FromString("x").Encoded() + ".age", "1.gone", ".age", "-1..age", "01.x.age"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v, pending, ok := parseFile(name)
		if !ok {
			return
		}
		again, p, ok := parseFile(v.file())
		if pending {
			again, p, ok = parseFile(v.pending())
		}
		if !ok || p != pending || again != v {
			t.Errorf("%q is %+v, written as %q", name, v, v.file())
		}
	})
}
