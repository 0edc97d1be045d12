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

// SetRef makes refs/kind/name hold d, durably and in one step.
func (s *Store) SetRef(kind, name string, d digest.Digest) error {
	path, err := s.refFile(kind, name)
	if err != nil {
		return err
	}
	if _, err := Rel(d); err != nil {
		return err
	}
	if err := s.writeRef(path, d.String()+"\n"); err != nil {
		return storing(s.dir, fmt.Sprintf("write the reference %s/%s", kind, name), err)
	}
	return nil
}

func (s *Store) writeRef(path, content string) error {
	f, err := s.createTemp()
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	made, err := renameInto(f.Name(), path)
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if made {
		if err := syncPath(s.refs()); err != nil {
			return err
		}
	}
	return syncPath(filepath.Dir(path))
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
func (s *Store) Refs(kind string) (map[string]digest.Digest, error) {
	dir, err := s.refFile(kind, "x")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list references: %w", err)
	}
	refs := make(map[string]digest.Digest, len(entries))
	for _, e := range entries {
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

// TouchRef notes that a reference is of use now; see [Store.RefTime].
func (s *Store) TouchRef(kind, name string) error {
	path, err := s.refFile(kind, name)
	if err != nil {
		return err
	}
	now := time.Now()
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
