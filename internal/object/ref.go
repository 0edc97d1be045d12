package object

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// touchAfter is how old a reference must be before its use is noted again: garbage
// collection counts in days, and a build that changes nothing should write nothing.
const touchAfter = 12 * time.Hour

// SetRef makes refs/kind/name hold d, durably and in one step.
func (s *Store) SetRef(kind, name string, d digest.Digest) error {
	b := s.NewBatch()
	defer b.Discard()
	if err := b.SetRef(kind, name, d); err != nil {
		return err
	}
	return b.Commit()
}

// stageRef writes a reference to a temporary file.
func (s *Store) stageRef(kind, name string, d digest.Digest) (path, temp string, err error) {
	if path, err = s.refFile(kind, name); err != nil {
		return "", "", err
	}
	if _, err := Rel(d); err != nil {
		return "", "", err
	}
	ses, err := s.begin()
	if err != nil {
		return "", "", err
	}
	if temp, err = ses.write([]byte(d.String() + "\n")); err != nil {
		return "", "", storing(s.dir, fmt.Sprintf("write the reference %s/%s", kind, name), err)
	}
	return path, temp, nil
}

// Ref reads a reference. The error for one that does not exist satisfies
// errors.Is(err, fs.ErrNotExist).
func (s *Store) Ref(kind, name string) (digest.Digest, error) {
	path, err := s.refFile(kind, name)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read reference %s/%s: %w", kind, name, err)
	}
	d := digest.Digest(strings.TrimSpace(string(b)))
	if _, err := Rel(d); err != nil {
		return "", fault.New(fault.Refused, "the reference %s/%s is damaged: it does not hold a digest", kind, name).At(path).
			Mend("remove %s", path)
	}
	return d, nil
}

// Refs reads all references of a kind, by name; a kind without any gives an empty map.
func (s *Store) Refs(kind string) (map[string]digest.Digest, error) { return s.RefsOf(kind, "") }

// RefsOf reads the references of a kind whose names begin with prefix.
func (s *Store) RefsOf(kind, prefix string) (map[string]digest.Digest, error) {
	dir, err := s.refFile(kind, "x")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list references: %w", err)
	}
	refs := map[string]digest.Digest{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		d, err := s.Ref(kind, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		refs[e.Name()] = d
	}
	return refs, nil
}

// RefNames lists the names of the references of a kind without reading them.
func (s *Store) RefNames(kind string) ([]string, error) {
	path, err := s.refFile(kind, "x")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list references: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// RemoveRef removes a reference; one that does not exist is not an error.
func (s *Store) RemoveRef(kind, name string) error {
	path, err := s.refFile(kind, name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove reference %s/%s: %w", kind, name, err)
	}
	return nil
}

// TouchRef notes that a reference is of use now; see [Store.RefTime]. It does not
// write when that was noted in the last 12 hours. The error for a reference that
// does not exist satisfies errors.Is(err, fs.ErrNotExist).
func (s *Store) TouchRef(kind, name string) error {
	used, err := s.RefTime(kind, name)
	if err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(used) < touchAfter {
		return nil
	}
	path, err := s.refFile(kind, name)
	if err != nil {
		return err
	}
	if err := os.Chtimes(path, now, now); err != nil {
		return fmt.Errorf("touch reference %s/%s: %w", kind, name, err)
	}
	return nil
}

// RefTime is when a reference was set or last touched.
func (s *Store) RefTime(kind, name string) (time.Time, error) {
	path, err := s.refFile(kind, name)
	if err != nil {
		return time.Time{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return time.Time{}, fmt.Errorf("read reference %s/%s: %w", kind, name, err)
	}
	return fi.ModTime(), nil
}

func (s *Store) refFile(kind, name string) (string, error) {
	for _, part := range []string{kind, name} {
		if part == "" || part[0] == '.' || len(part) > 255 || strings.ContainsAny(part, "/\x00") {
			return "", fault.New(fault.Invalid, "%q is not a name for a reference", part).
				Mend("use 1 to 255 bytes without a slash that do not begin with a dot")
		}
	}
	return filepath.Join(s.refs(), kind, name), nil
}
