package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const (
	releaseColumns = "SELECT app, number, digest, doc, created, collected FROM releases "
	selectRelease  = releaseColumns + "WHERE digest = ?"
)

// AddRelease is engine.Store.AddRelease.
func (s *Store) AddRelease(ctx context.Context, rel engine.Stored, entry record.Entry) (engine.Stored, error) {
	if got := digest.FromBytes(rel.Doc); got != rel.Digest {
		return engine.Stored{}, fault.New(fault.Refused, "release %s: its document has the digest %s", rel.Digest, got)
	}
	var out engine.Stored
	err := s.change(ctx, "add a release", func(tx transaction) error {
		known, err := scanRelease(tx.QueryRowContext(ctx, selectRelease, rel.Digest))
		switch {
		case err == nil && !known.Collected:
			out = known
			return nil
		case err == nil:
			out = known
			out.Collected = false
			_, err = tx.ExecContext(ctx, "UPDATE releases SET collected = 0 WHERE digest = ?", rel.Digest)
		case errors.Is(err, sql.ErrNoRows):
			out, err = insertRelease(ctx, tx, rel)
		}
		if err != nil {
			return err
		}
		entry.Release = rel.Digest
		entry.Data = maps.Clone(entry.Data)
		if entry.Data == nil {
			entry.Data = map[string]string{}
		}
		entry.Data["number"] = strconv.Itoa(out.Number)
		return appendEntries(ctx, tx, []record.Entry{entry})
	})
	if err != nil {
		return engine.Stored{}, err
	}
	return out, nil
}

func insertRelease(ctx context.Context, tx transaction, rel engine.Stored) (engine.Stored, error) {
	rel.Collected = false
	rel.Created = rel.Created.UTC().Round(0)
	err := tx.QueryRowContext(ctx, "SELECT coalesce(max(number), 0) + 1 FROM releases WHERE app = ?", rel.App).Scan(&rel.Number)
	if err != nil {
		return engine.Stored{}, err
	}
	doc, err := pack(rel.Doc)
	if err != nil {
		return engine.Stored{}, err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO releases (digest, app, number, created, collected, doc) VALUES (?, ?, ?, ?, 0, ?)",
		rel.Digest, rel.App, rel.Number, rel.Created.Format(time.RFC3339Nano), doc)
	return rel, err
}

// MarkCollected says that gc removed the release's objects. The release stays, in
// the record and in Releases. A release that is marked already stays as it is and
// nothing is appended.
func (s *Store) MarkCollected(ctx context.Context, d digest.Digest, entry record.Entry) error {
	return s.change(ctx, "mark a release as collected", func(tx transaction) error {
		var collected bool
		err := tx.QueryRowContext(ctx, "SELECT collected FROM releases WHERE digest = ?", d).Scan(&collected)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return unknownRelease(d)
		case err != nil || collected:
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE releases SET collected = 1 WHERE digest = ?", d); err != nil {
			return err
		}
		entry.Release = d
		return appendEntries(ctx, tx, []record.Entry{entry})
	})
}

// Release is engine.Store.Release.
func (s *Store) Release(ctx context.Context, d digest.Digest) (engine.Stored, error) {
	rel, err := scanRelease(s.reader.QueryRowContext(ctx, selectRelease, d))
	if errors.Is(err, sql.ErrNoRows) {
		return engine.Stored{}, unknownRelease(d)
	}
	return rel, s.explain("read release "+string(d), err)
}

// Releases is engine.Store.Releases.
func (s *Store) Releases(ctx context.Context, app string) (_ []engine.Stored, err error) {
	rows, err := s.reader.QueryContext(ctx, releaseColumns+"WHERE app = ? ORDER BY number", app)
	if err != nil {
		return nil, s.explain("read releases", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []engine.Stored
	for rows.Next() {
		rel, err := scanRelease(rows)
		if err != nil {
			return nil, s.explain("read releases", err)
		}
		out = append(out, rel)
	}
	return out, s.explain("read releases", rows.Err())
}

func scanRelease(row interface{ Scan(...any) error }) (engine.Stored, error) {
	var rel engine.Stored
	var packed []byte
	var created string
	if err := row.Scan(&rel.App, &rel.Number, &rel.Digest, &packed, &created, &rel.Collected); err != nil {
		return engine.Stored{}, err
	}
	doc, err := unpack(packed)
	if err != nil {
		return engine.Stored{}, fmt.Errorf("release %s: %w", rel.Digest, err)
	}
	if got := digest.FromBytes(doc); got != rel.Digest {
		return engine.Stored{}, fault.New(fault.Refused, "release %s is damaged in the database: its document has the digest %s", rel.Digest, got).
			Mend("verify the record:  ashlar log verify; restore the last backup")
	}
	rel.Doc = doc
	rel.Created, err = time.Parse(time.RFC3339Nano, created)
	return rel, err
}

func unknownRelease(d digest.Digest) error {
	return fault.New(fault.NotFound, "there is no release %s: %w", d, fs.ErrNotExist).Mend("list the releases:  ashlar history")
}
