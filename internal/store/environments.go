package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Environments is engine.Store.Environments.
func (s *Store) Environments(ctx context.Context) (_ []engine.Key, err error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT app, env FROM environments JOIN scopes ON scopes.id = scope ORDER BY app, env")
	if err != nil {
		return nil, s.explain("read environments", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []engine.Key
	for rows.Next() {
		var k engine.Key
		if err := rows.Scan(&k.App, &k.Env); err != nil {
			return nil, s.explain("read environments", err)
		}
		out = append(out, k)
	}
	return out, s.explain("read environments", rows.Err())
}

const (
	selectState = "SELECT version, state FROM environments JOIN scopes ON scopes.id = scope WHERE app = ? AND env = ?"
	updateState = "UPDATE environments SET version = version + 1, state = ?2 WHERE scope = ?1 AND version = ?3"
	selectScope = "SELECT id FROM scopes WHERE app = ? AND env = ?"
)

// State is engine.Store.State.
func (s *Store) State(ctx context.Context, env engine.Key) (rollout.State, int64, error) {
	var version int64
	var packed []byte
	err := s.reader.QueryRowContext(ctx, selectState, env.App, env.Env).Scan(&version, &packed)
	if errors.Is(err, sql.ErrNoRows) {
		return rollout.State{}, 0, nil
	}
	if err != nil {
		return rollout.State{}, 0, s.explain("read the state of "+env.String(), err)
	}
	raw, err := unpack(packed)
	if err != nil {
		return rollout.State{}, 0, s.damaged(fmt.Errorf("state of %s: %w", env, err))
	}
	var state rollout.State
	if err := json.Unmarshal(raw, &state); err != nil {
		return rollout.State{}, 0, s.damaged(fmt.Errorf("state of %s: %w", env, err))
	}
	return state, version, nil
}

// Commit is engine.Store.Commit.
func (s *Store) Commit(ctx context.Context, env engine.Key, version int64, next rollout.State, entries []record.Entry) (int64, error) {
	raw, err := json.Marshal(next)
	if err != nil {
		return 0, fmt.Errorf("state of %s: %w", env, err)
	}
	packed, err := pack(raw)
	if err != nil {
		return 0, fmt.Errorf("state of %s: %w", env, err)
	}
	err = s.change(ctx, "change "+env.String(), func(tx transaction) error {
		scope, err := scopeOf(ctx, tx, env)
		if err != nil {
			return err
		}
		query := updateState
		if version == 0 {
			query = "INSERT INTO environments (scope, version, state) VALUES (?1, ?3 + 1, ?2) ON CONFLICT DO NOTHING"
		}
		done, err := tx.ExecContext(ctx, query, scope, packed, version)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("environment %s: %w", env, rollout.ErrStale))
		}
		return appendEntries(ctx, tx, entries)
	})
	if err != nil {
		return 0, err
	}
	return version + 1, nil
}

// scopeOf gives the number under which the environment is filed.
func scopeOf(ctx context.Context, tx transaction, key engine.Key) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, selectScope, key.App, key.Env).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.QueryRowContext(ctx, "INSERT INTO scopes (app, env) VALUES (?, ?) RETURNING id", key.App, key.Env).Scan(&id)
	}
	return id, err
}
