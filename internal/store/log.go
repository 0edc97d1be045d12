package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const (
	selectHead      = "SELECT size, root FROM head"
	updateHead      = "UPDATE head SET size = ?, root = ?"
	insertEntry     = "INSERT INTO entries (idx, scope, leaf, hashes) VALUES (?, ?, ?, ?)"
	selectEntriesOf = "SELECT leaf FROM entries WHERE idx >= ? AND idx < ? AND scope = (SELECT id FROM scopes WHERE app = ? AND env = ?) ORDER BY idx"
)

// Append is engine.Store.Append.
func (s *Store) Append(ctx context.Context, entries []record.Entry) error {
	return s.change(ctx, "append to the record", func(tx transaction) error { return appendEntries(ctx, tx, entries) })
}

// appendEntries is the only writer of the record; it runs within the transaction
// of the change that the entries tell of.
func appendEntries(ctx context.Context, tx transaction, entries []record.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	size, _, err := head(ctx, tx)
	if err != nil {
		return err
	}
	leaves := make([][]byte, len(entries))
	for i, e := range entries {
		e.Index = size + int64(i)
		if leaves[i], err = e.Leaf(); err != nil {
			return err
		}
	}
	scopes := make([]engine.Key, len(entries))
	for i, e := range entries {
		scopes[i] = engine.Key{App: e.App, Env: e.Env}
	}
	return appendLeaves(ctx, tx, size, leaves, scopes)
}

// appendLeaves adds leaves to a tree of the given size.
func appendLeaves(ctx context.Context, tx transaction, size int64, leaves [][]byte, scopes []engine.Key) error {
	hashes, root, err := record.Append(size, leaves, reader{ctx, tx})
	if err != nil {
		return err
	}
	for i, leaf := range leaves {
		index := size + int64(i)
		n := tlog.StoredHashCount(index+1) - tlog.StoredHashCount(index)
		if err := insertLeaf(ctx, tx, index, scopes[i], leaf, hashes[:n]); err != nil {
			return err
		}
		hashes = hashes[n:]
	}
	_, err = tx.ExecContext(ctx, updateHead, size+int64(len(leaves)), root[:])
	return err
}

func insertLeaf(ctx context.Context, tx transaction, index int64, about engine.Key, leaf []byte, hashes []tlog.Hash) error {
	scope, err := scopeOf(ctx, tx, about)
	if err != nil {
		return err
	}
	stored := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		stored = append(stored, h[:]...)
	}
	_, err = tx.ExecContext(ctx, insertEntry, index, scope, string(leaf), stored)
	return err
}

// AppendStatements adds the leaves of signed statements and, after them, an entry that
// tells of them, in one transaction. It gives the first leaf's index, which the entry has
// too, and their number if there are more.
func (s *Store) AppendStatements(ctx context.Context, leaves [][]byte, e record.Entry) (int64, error) {
	for _, leaf := range leaves {
		if !record.IsStatement(leaf) {
			return 0, fault.New(fault.Invalid, "what is to be recorded is no signed statement")
		}
	}
	var size int64
	err := s.change(ctx, "append to the record", func(tx transaction) (err error) {
		if size, _, err = head(ctx, tx); err != nil {
			return err
		}
		if err := appendLeaves(ctx, tx, size, leaves, make([]engine.Key, len(leaves))); err != nil {
			return err
		}
		e.Data = maps.Clone(e.Data)
		if e.Data == nil {
			e.Data = map[string]string{}
		}
		e.Data["statement"] = strconv.FormatInt(size, 10)
		if len(leaves) > 1 {
			e.Data["statements"] = strconv.Itoa(len(leaves))
		}
		return appendEntries(ctx, tx, []record.Entry{e})
	})
	return size, err
}

// Entries is engine.Store.Entries.
func (s *Store) Entries(ctx context.Context, env engine.Key, from, to int64) (_ []record.Entry, err error) {
	if to < 0 {
		to = math.MaxInt64
	}
	query, args := "SELECT leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", []any{from, to}
	if env != (engine.Key{}) {
		query = selectEntriesOf
		args = append(args, env.App, env.Env)
	}
	rows, err := s.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("read the record", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []record.Entry
	for rows.Next() {
		var leaf sql.RawBytes
		if err := rows.Scan(&leaf); err != nil {
			return nil, s.explain("read the record", err)
		}
		if record.IsStatement(leaf) {
			continue // the entry after it tells of it
		}
		var e record.Entry
		if err := json.Unmarshal(leaf, &e); err != nil {
			return nil, s.damaged(fmt.Errorf("an entry of the record: %w", err))
		}
		out = append(out, e)
	}
	return out, s.explain("read the record", rows.Err())
}

// Leaves gives the bytes of the entries from index from up to before to, as the
// record's proofs are about them; fewer where there are none.
func (s *Store) Leaves(ctx context.Context, from, to int64) (_ [][]byte, err error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", from, to)
	if err != nil {
		return nil, s.explain("read the record", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out [][]byte
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			return nil, s.explain("read the record", err)
		}
		out = append(out, leaf)
	}
	return out, s.explain("read the record", rows.Err())
}

// Head gives the number of entries and the root of the Merkle tree over them.
func (s *Store) Head(ctx context.Context) (size int64, root tlog.Hash, err error) {
	size, root, err = head(ctx, s.reader)
	return size, root, s.explain("read the record", err)
}

// Hashes gives the stored hashes of the tree, for record.Root and the proofs.
// Reading waits for ctx.
func (s *Store) Hashes(ctx context.Context) tlog.HashReader { return reader{ctx, s.reader} }

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func head(ctx context.Context, q querier) (size int64, root tlog.Hash, err error) {
	var raw []byte
	if err := q.QueryRowContext(ctx, selectHead).Scan(&size, &raw); err != nil {
		return 0, root, err
	}
	copy(root[:], raw)
	return size, root, nil
}
