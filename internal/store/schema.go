package store

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// applicationID marks the database as Ashlar's: "ASHL".
const applicationID = 0x4153484c

// pageSize is small because a commit writes whole pages, to the write-ahead log
// and later to the database: see TestBytesWritten.
const pageSize = 1024

// migrations bring the database from version i to i+1 (pragma user_version). One
// that was released is never changed.
var migrations = []string{`
-- The record's size and Merkle tree root: one row, replaced with every append.
CREATE TABLE head (
	one  INTEGER PRIMARY KEY CHECK (one = 1),
	size INTEGER NOT NULL,
	root BLOB NOT NULL
) STRICT;

-- Environments, and applications (env = ''), that entries are about.
CREATE TABLE scopes (
	id  INTEGER PRIMARY KEY,
	app TEXT NOT NULL,
	env TEXT NOT NULL,
	UNIQUE (app, env)
) STRICT;

-- The record. hashes are the stored hashes that the entry adds to the tree, 32
-- bytes each, from level 0 up (golang.org/x/mod/sumdb/tlog).
CREATE TABLE entries (
	idx    INTEGER PRIMARY KEY,
	scope  INTEGER NOT NULL REFERENCES scopes (id),
	leaf   TEXT NOT NULL,
	hashes BLOB NOT NULL
) STRICT;
CREATE INDEX entries_scope ON entries (scope);
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
	BEGIN SELECT RAISE (ABORT, 'the record is append-only'); END;
CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
	BEGIN SELECT RAISE (ABORT, 'the record is append-only'); END;

-- state is JSON, compressed with DEFLATE (RFC 1951).
CREATE TABLE environments (
	scope   INTEGER PRIMARY KEY REFERENCES scopes (id),
	version INTEGER NOT NULL,
	state   BLOB NOT NULL
) STRICT;

-- doc is canonical JSON, compressed with DEFLATE (RFC 1951). created is RFC 3339.
CREATE TABLE releases (
	id        INTEGER PRIMARY KEY,
	digest    TEXT NOT NULL UNIQUE,
	app       TEXT NOT NULL,
	number    INTEGER NOT NULL,
	created   TEXT NOT NULL,
	collected INTEGER NOT NULL,
	doc       BLOB NOT NULL,
	UNIQUE (app, number)
) STRICT;
`, `
-- How far each webhook of an environment has been told: the index of the first entry
-- that it has not been.
CREATE TABLE told (
	scope INTEGER NOT NULL REFERENCES scopes (id),
	url   TEXT NOT NULL,
	next  INTEGER NOT NULL,
	PRIMARY KEY (scope, url)
) STRICT, WITHOUT ROWID;
`, `
-- Documents that are or were policies, compressed with DEFLATE (RFC 1951): verdicts in the
-- record name them. judged is which one counts in each environment that has one.
CREATE TABLE policies (
	digest TEXT PRIMARY KEY,
	doc    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE judged (
	scope  INTEGER PRIMARY KEY REFERENCES scopes (id),
	policy TEXT NOT NULL REFERENCES policies (digest)
) STRICT;
`}

// migrate brings the database to this program's version, in one transaction.
func (s *Store) migrate(ctx context.Context) error {
	tx, err := s.writer.begin(ctx, nil)
	if err != nil {
		return s.explain("open", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	var id, version, tables int
	for query, to := range map[string]*int{
		"PRAGMA application_id": &id, "PRAGMA user_version": &version, "SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := tx.QueryRowContext(ctx, query).Scan(to); err != nil {
			return s.explain("open", err)
		}
	}
	if tables > 0 && id != applicationID {
		return fault.New(fault.Refused, "%s is a database of another program", s.path).
			Mend("choose another state directory, or move the file aside")
	}
	if version > len(migrations) {
		return fault.New(fault.Refused, "%s was written by a newer Ashlar (format %d; this one knows up to %d)", s.path, version, len(migrations)).
			Mend("run the newer Ashlar again, or restore a backup from before it")
	}
	if version == len(migrations) {
		return nil
	}
	if err := upgrade(ctx, tx, version); err != nil {
		return s.explain("migrate", err)
	}
	return s.explain("migrate", tx.Commit())
}

func upgrade(ctx context.Context, tx transaction, from int) error {
	for _, step := range migrations[from:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return err
		}
	}
	if from == 0 {
		root, err := tlog.TreeHash(0, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO head (one, size, root) VALUES (1, 0, ?)", root[:]); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(migrations)))
	return err
}
