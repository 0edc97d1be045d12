package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// reader reads stored hashes. The hash of a subtree is kept with the entry that
// completes it: that of level l, number n with entry (n+1)*2^l - 1.
type reader struct {
	ctx context.Context // of the one call that the reader was made for
	q   querier
}

// ReadHashes is tlog.HashReader; a hash that is not there is record.ErrNoHash.
func (r reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	rows, err := r.run(indexes)
	if err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		at := rowOf(level, n)
		hashes, ok := rows[at]
		if !ok {
			err := r.q.QueryRowContext(r.ctx, selectHashes, at).Scan(&hashes)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, err
			}
			rows[at] = hashes
		}
		from := level * tlog.HashSize
		if from+tlog.HashSize > len(hashes) {
			return nil, fmt.Errorf("hash of level %d, number %d: %w", level, n, record.ErrNoHash)
		}
		copy(out[i][:], hashes[from:])
	}
	return out, nil
}

const selectHashes = "SELECT hashes FROM entries WHERE idx = ?"

func rowOf(level int, n int64) int64 { return (n+1)<<level - 1 }

// run reads the rows of many hashes of level 0 that follow one another, which tiles
// are, with one query; other rows are read one by one.
func (r reader) run(indexes []int64) (_ map[int64][]byte, err error) {
	out := map[int64][]byte{}
	if len(indexes) < 8 {
		return out, nil
	}
	level, first := tlog.SplitStoredHashIndex(indexes[0])
	lastLevel, last := tlog.SplitStoredHashIndex(indexes[len(indexes)-1])
	if level != 0 || lastLevel != 0 || last-first != int64(len(indexes))-1 {
		return out, nil
	}
	rows, err := r.q.QueryContext(r.ctx, "SELECT idx, hashes FROM entries WHERE idx BETWEEN ? AND ?", first, last)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var at int64
		var hashes []byte
		if err := rows.Scan(&at, &hashes); err != nil {
			return nil, err
		}
		out[at] = hashes
	}
	return out, rows.Err()
}

// VerifyRecord recomputes the whole record as it is at this moment, while it may
// grow. What is wrong with it is in the report; the error is only about reading.
func (s *Store) VerifyRecord(ctx context.Context) (record.Report, error) {
	tx, err := s.reader.begin(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return record.Report{}, s.explain("verify the record", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was changed
	size, root, err := head(ctx, tx)
	if err != nil {
		return record.Report{}, s.explain("verify the record", err)
	}
	var misfiled *record.Finding
	hashes := &passing{reader: reader{ctx, tx}, at: -1}
	report, err := record.Verify(leaves(ctx, tx, hashes, &misfiled), hashes, size, root)
	if err != nil {
		return report, s.explain("verify the record", err)
	}
	if report.Finding == nil {
		report.Finding = misfiled
	}
	return report, nil
}

// passing is a reader that has the hashes of the row that is passing by: those are
// asked for with every entry.
type passing struct {
	reader
	at     int64
	hashes []byte
}

// ReadHashes is tlog.HashReader.
func (p *passing) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		from := level * tlog.HashSize
		if rowOf(level, n) != p.at || from+tlog.HashSize > len(p.hashes) {
			return p.reader.ReadHashes(indexes)
		}
		copy(out[i][:], p.hashes[from:])
	}
	return out, nil
}

// leaves gives every entry's bytes, lets its hashes pass, and remembers the first that is
// filed under another scope than it says: no hash covers that.
func leaves(ctx context.Context, q querier, pass *passing, misfiled **record.Finding) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		rows, err := q.QueryContext(ctx, "SELECT idx, leaf, hashes, coalesce(app, ''), coalesce(env, '') FROM entries LEFT JOIN scopes ON scopes.id = scope ORDER BY idx")
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close() //nolint:errcheck // rows.Err has told
		var n int64
		for ; rows.Next(); n++ {
			var leaf []byte
			var filed engine.Key
			if err := rows.Scan(&pass.at, &leaf, &pass.hashes, &filed.App, &filed.Env); err != nil {
				yield(nil, err)
				return
			}
			if *misfiled == nil {
				*misfiled = checkFiled(n, leaf, filed)
			}
			if !yield(leaf, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func checkFiled(index int64, leaf []byte, filed engine.Key) *record.Finding {
	var e engine.Key
	if err := json.Unmarshal(leaf, &e); err != nil || e == filed {
		return nil // Verify tells what is wrong with a leaf that is no entry
	}
	return &record.Finding{Verdict: record.Misfiled, First: index, Last: index,
		What: fmt.Sprintf("entry %d of %s is filed under %s", index, e, filed)}
}
