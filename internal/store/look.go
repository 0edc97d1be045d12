package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Look opens a database for reading alone, while a server may be using it. It neither
// makes nor migrates one. The error for a file that does not exist satisfies
// errors.Is(err, fs.ErrNotExist). Of the store's methods those that change something
// fail.
func Look(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0: // an empty one is about to be made
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	case err != nil:
		return nil, s.explain("open", err)
	}
	if s.reader, err = openDatabase(s.source("mode=rw&_query_only=1")); err != nil {
		return nil, s.explain("open", err)
	}
	s.writer = s.reader // which the database lets change nothing
	s.reader.SetMaxOpenConns(2)
	s.reader.SetMaxIdleConns(1)
	var id, version int
	for query, to := range map[string]*int{"PRAGMA application_id": &id, "PRAGMA user_version": &version} {
		if err := s.reader.QueryRowContext(ctx, query).Scan(to); err != nil {
			return nil, s.shut(s.explain("open", err))
		}
	}
	if id != applicationID || version != len(migrations) {
		return nil, s.shut(fault.New(fault.Conflict, "%s is not of this version's format (%d; this one knows %d)", path, version, len(migrations)).
			Mend("start this version's server once:  ashlar server"))
	}
	return s, nil
}

func (s *Store) shut(err error) error {
	_ = s.reader.Close() // err says more
	return err
}
