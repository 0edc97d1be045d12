package secret

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// head is the first line of what is encrypted. It binds a value to its place: a file that
// was moved to another secret does not open there.
func head(key rollout.Key, name string, number int) string {
	return fmt.Sprintf("ashlar-secret/v1 %s/%s/%s/%d\n", key.App, key.Env, name, number)
}

// Seal encrypts a value as the next version. Nobody sees the version before Commit.
func (s *Store) Seal(key rollout.Key, name string, value []byte) (Version, error) {
	if err := check(key, name); err != nil {
		return Version{}, err
	}
	if len(value) == 0 || len(value) > MaxSize {
		return Version{}, fault.New(fault.Invalid, "the value of secret %s has %d bytes; it must have 1 to %d", name, len(value), MaxSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.identity.make()
	if err != nil {
		return Version{}, err
	}
	dir := s.place(key, name)
	if err := makeDirs(s.dir, dir); err != nil {
		return Version{}, unwritable(dir, err)
	}
	v := Version{Key: key, Name: name}
	if v.Number, err = next(dir); err != nil {
		return Version{}, err
	}
	sealed, err := encrypt(id, head(key, name, v.Number), value)
	if err != nil {
		return Version{}, fault.New(fault.Internal, "cannot encrypt secret %s: %w", name, err)
	}
	v.Sealed = digest.FromBytes(sealed)
	if err := create(filepath.Join(dir, v.pending()), sealed, 0o400); err != nil {
		return Version{}, unwritable(dir, err)
	}
	return v, nil
}

func encrypt(id *age.X25519Identity, head string, value []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.Recipient())
	if err != nil {
		return nil, err
	}
	_, err = w.Write(append([]byte(head), value...))
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// next is the lowest number above every one that was used.
func next(dir string) (int, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, unreadable(dir, err)
	}
	last := 0
	for _, f := range files {
		v, _, _ := parseFile(f.Name())
		last = max(last, v.Number, parseGone(f.Name()))
	}
	return last + 1, nil
}

// Commit lets a sealed version be seen. It may be called again.
func (s *Store) Commit(v Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.place(v.Key, v.Name)
	err := os.Rename(filepath.Join(dir, v.pending()), filepath.Join(dir, v.file()))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Join(dir, v.file()))
	}
	if err = errors.Join(err, durable.SyncDir(dir)); err != nil {
		return unwritable(dir, err)
	}
	return nil
}

// Drop removes a sealed version that was not committed; its number was never used.
func (s *Store) Drop(v Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.place(v.Key, v.Name)
	return errors.Join(os.Remove(filepath.Join(dir, v.pending())), durable.SyncDir(dir))
}

// Pending gives the versions that were sealed and neither committed nor dropped.
func (s *Store) Pending() ([]Version, error) {
	all, err := s.scan(s.dir)
	var out []Version
	for _, one := range all {
		if one.pending {
			out = append(out, one.Version)
		}
	}
	return out, err
}

// List gives the versions of an environment, by name and number.
func (s *Store) List(key rollout.Key) ([]Version, error) {
	if err := check(key, "any"); err != nil {
		return nil, err
	}
	return s.versions(filepath.Join(s.dir, key.App, key.Env))
}

// All gives every version, by environment, name and number.
func (s *Store) All() ([]Version, error) { return s.versions(s.dir) }

// Holds says whether there is a version with these encrypted bytes, of any environment.
func (s *Store) Holds(sealed digest.Digest) (bool, error) {
	all, err := s.versions(s.dir)
	return slices.ContainsFunc(all, func(v Version) bool { return v.Sealed == sealed }), err
}

// Get gives the value of the version that a release names. Bytes that are not those which
// the release means are a fault of kind Refused.
func (s *Store) Get(ctx context.Context, key rollout.Key, want release.Secret) ([]byte, error) {
	if err := errors.Join(ctx.Err(), check(key, want.Name)); err != nil {
		return nil, err
	}
	return s.open(Version{Key: key, Name: want.Name, Number: want.Version, Sealed: want.Sealed})
}

// Newest gives the value of the newest version of a secret.
func (s *Store) Newest(ctx context.Context, key rollout.Key, name string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), check(key, name)); err != nil {
		return nil, err
	}
	all, err := s.versions(s.place(key, name))
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, absent(key, name)
	}
	return s.open(all[len(all)-1])
}

func absent(key rollout.Key, name string) error {
	return fault.New(fault.NotFound, "%s has no secret %s", key, name).Mend("set it:  ashlar secret set %s %s", key.Env, name)
}

func (s *Store) open(v Version) ([]byte, error) {
	path := filepath.Join(s.place(v.Key, v.Name), v.file())
	sealed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%s has no version %d of secret %s with the digest that is meant", v.Key, v.Number, v.Name).
			Mend("set it and deploy:  ashlar secret set %s %s", v.Key.Env, v.Name)
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	if digest.FromBytes(sealed) != v.Sealed {
		return nil, fault.New(fault.Refused, "version %d of secret %s is damaged: its bytes are not those of %s", v.Number, v.Name, v.Sealed).At(path).
			Mend("put the file back from a backup, or set the secret and deploy:  ashlar secret set %s %s", v.Key.Env, v.Name)
	}
	id, err := s.identity.read(true)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	var plain []byte
	if err == nil {
		plain, err = io.ReadAll(r)
	}
	value, ok := bytes.CutPrefix(plain, []byte(head(v.Key, v.Name, v.Number)))
	if err != nil || !ok {
		return nil, fault.New(fault.Refused, "version %d of secret %s does not open with this server's identity", v.Number, v.Name).At(path).
			Mend("name the identity that it was set with:  ashlar server --secret-identity FILE")
	}
	return value, nil
}

// Remove removes a version for good. That it is of no use any more is the caller's to
// know. The number stays used. A version that is not there is no error.
func (s *Store) Remove(v Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.place(v.Key, v.Name)
	used := filepath.Join(dir, fmt.Sprint(v.Number)+gone)
	if err := create(used, nil, 0o400); err != nil && !errors.Is(err, fs.ErrExist) {
		return unwritable(dir, err)
	}
	if err := os.Remove(filepath.Join(dir, v.file())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(dir, err)
	}
	return durable.SyncDir(dir)
}

func (s *Store) place(key rollout.Key, name string) string {
	return filepath.Join(s.dir, key.App, key.Env, name)
}

type found struct {
	Version
	pending bool
}

// versions gives what is committed below a directory, by name and number.
func (s *Store) versions(below string) ([]Version, error) {
	all, err := s.scan(below)
	var out []Version
	for _, one := range all {
		if !one.pending {
			out = append(out, one.Version)
		}
	}
	return out, err
}

func (s *Store) scan(below string) ([]found, error) {
	var out []found
	err := filepath.WalkDir(below, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		v, pending, ok := parseFile(d.Name())
		where, err := filepath.Rel(s.dir, filepath.Dir(path))
		parts := strings.Split(filepath.ToSlash(where), "/")
		if !ok || err != nil || len(parts) != 3 {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		v.Key, v.Name, v.Set = rollout.Key{App: parts[0], Env: parts[1]}, parts[2], info.ModTime().UTC()
		out = append(out, found{v, pending})
		return nil
	})
	if err != nil {
		return nil, unreadable(below, err)
	}
	slices.SortFunc(out, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.Key.App, b.Key.App), cmp.Compare(a.Key.Env, b.Key.Env), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
	return out, nil
}

func unreadable(path string, err error) error {
	return fault.New(fault.Unavailable, "cannot read the secrets: %w", err).At(path)
}

func unwritable(path string, err error) error {
	return fault.New(fault.Unavailable, "cannot keep the secret: %w", err).At(path)
}
