package store

import (
	"context"
	"errors"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Told gives, by address, the index of the first entry of the record that a webhook
// of an environment has not been told yet.
func (s *Store) Told(ctx context.Context, env engine.Key) (_ map[string]int64, err error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT url, next FROM told JOIN scopes ON scopes.id = scope WHERE app = ? AND env = ?", env.App, env.Env)
	if err != nil {
		return nil, s.explain("read the webhooks of "+env.String(), err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	told := map[string]int64{}
	for rows.Next() {
		var url string
		var next int64
		if err := rows.Scan(&url, &next); err != nil {
			return nil, s.explain("read the webhooks of "+env.String(), err)
		}
		told[url] = next
	}
	return told, s.explain("read the webhooks of "+env.String(), rows.Err())
}

// Tell sets how far a webhook has been told and appends entries, in one transaction.
func (s *Store) Tell(ctx context.Context, env engine.Key, url string, next int64, entries []record.Entry) error {
	return s.change(ctx, "change the webhooks of "+env.String(), func(tx transaction) error {
		scope, err := scopeOf(ctx, tx, env)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO told (scope, url, next) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next", scope, url, next); err != nil {
			return err
		}
		return appendEntries(ctx, tx, entries)
	})
}

// Untell forgets a webhook. One that is not known is no error.
func (s *Store) Untell(ctx context.Context, env engine.Key, url string) error {
	return s.change(ctx, "change the webhooks of "+env.String(), func(tx transaction) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM told WHERE url = ? AND scope = (SELECT id FROM scopes WHERE app = ? AND env = ?)", url, env.App, env.Env)
		return err
	})
}
