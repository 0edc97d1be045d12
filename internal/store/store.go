package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

var _ engine.Store = (*Store)(nil)

// Store is an open database. Its methods are safe for concurrent use; changes
// happen one after another.
type Store struct {
	path   string
	writer database // one connection: changes queue here
	reader database // never waits for the writer, sees what was committed
	signal signal
}

// Sizes of the write-ahead log, in pages: when its contents are moved into the
// database, and what it may keep on disk after that.
const (
	checkpointPages = 1000
	keptBytes       = 2 * checkpointPages * pageSize
)

// quickCheckLimit is the largest database, in bytes, whose structure Open checks.
// A larger one would delay the start; damage is then found when it is met.
const quickCheckLimit = 16 << 20

// Open opens the database, makes it if it does not exist, and brings it to this
// program's format. A damaged file, or one of another program, is a fault of kind
// Refused that names it. The caller holds Lock.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path}
	existing, err := s.create()
	if err != nil {
		return nil, s.explain("open", err)
	}
	if s.writer, err = openDatabase(s.source("_txlock=immediate")); err != nil {
		return nil, s.explain("open", err)
	}
	s.writer.SetMaxOpenConns(1)
	if s.reader, err = openDatabase(s.source("_query_only=1")); err != nil {
		return nil, errors.Join(s.explain("open", err), s.writer.Close())
	}
	s.reader.SetMaxOpenConns(4)
	s.reader.SetMaxIdleConns(2)
	if existing {
		err = s.quickCheck(ctx)
	}
	if err == nil {
		err = s.migrate(ctx)
	}
	if err == nil {
		err = s.explain("open", errors.Join(s.writer.compile(ctx, often.write), s.reader.compile(ctx, often.read)))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close moves the write-ahead log into the database and closes it.
func (s *Store) Close() error {
	return errors.Join(s.reader.Close(), s.writer.Close())
}

// create makes an empty file that only its owner can read, and says whether there
// was one with contents already.
func (s *Store) create() (existing bool, err error) {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		info, err := os.Stat(s.path)
		return err == nil && info.Size() > 0, err
	}
	if err != nil {
		return false, err
	}
	return false, errors.Join(f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(s.path)))
}

// source is the driver's name of the database. The page size counts when the
// database is made, which is before the journal mode is set.
func (s *Store) source(more string) string {
	u := url.URL{Scheme: "file", Path: s.path}
	return u.String() + "?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_foreign_keys=1&_dqs=0&_defensive=1" +
		"&_pragma=page_size(" + strconv.Itoa(pageSize) + ")" +
		"&_pragma=wal_autocheckpoint(" + strconv.Itoa(checkpointPages) + ")" +
		"&_pragma=journal_size_limit(" + strconv.Itoa(keptBytes) + ")" +
		"&_pragma=trusted_schema(0)&_pragma=cell_size_check(1)&" + more
}

// quickCheck reads the whole database for damage of its structure.
func (s *Store) quickCheck(ctx context.Context) error {
	info, err := os.Stat(s.path)
	if err != nil || info.Size() > quickCheckLimit {
		return err
	}
	var verdict string
	if err := s.writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return s.explain("open", err)
	}
	if verdict != "ok" {
		return s.damaged(errors.New(verdict))
	}
	return nil
}

// Backup writes a consistent copy to a new file while the store is in use. The
// copy is complete and durable under its name, or it is not there.
func (s *Store) Backup(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fault.New(fault.Conflict, "%s exists already", path).Mend("name a new file for the backup")
	}
	partial := path + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := s.vacuumInto(ctx, partial); err != nil {
		return errors.Join(s.explain("back up to "+path, err), os.RemoveAll(partial))
	}
	if err := publish(partial, path); err != nil {
		return errors.Join(fmt.Errorf("back up to %s: %w", path, err), os.RemoveAll(partial))
	}
	return nil
}

// vacuumInto copies over a connection of its own, so that changes need not wait.
func (s *Store) vacuumInto(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", s.source("_txlock=deferred"))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
	return errors.Join(err, db.Close())
}

// publish makes a complete file durable and then gives it its name.
func publish(partial, path string) error {
	f, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
