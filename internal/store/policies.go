package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// SetPolicy makes a document the policy of an environment, and appends the entry, in one
// transaction; with a nil document it has none any more. It says false, and nothing is
// appended, where that is so already. Documents are never forgotten: verdicts name them.
func (s *Store) SetPolicy(ctx context.Context, env engine.Key, document []byte, entry record.Entry) (changed bool, err error) {
	d := digest.Digest("")
	if document != nil {
		d = digest.FromBytes(document)
	}
	err = s.change(ctx, "set the policy of "+env.String(), func(tx transaction) error {
		scope, err := scopeOf(ctx, tx, env)
		if err != nil {
			return err
		}
		var now digest.Digest
		err = tx.QueryRowContext(ctx, "SELECT policy FROM judged WHERE scope = ?", scope).Scan(&now)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if changed = now != d; !changed {
			return nil
		}
		if err := putPolicy(ctx, tx, scope, d, document); err != nil {
			return err
		}
		return appendEntries(ctx, tx, []record.Entry{entry})
	})
	return changed && err == nil, err
}

func putPolicy(ctx context.Context, tx transaction, scope int64, d digest.Digest, document []byte) error {
	if document == nil {
		_, err := tx.ExecContext(ctx, "DELETE FROM judged WHERE scope = ?", scope)
		return err
	}
	packed, err := pack(document)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO policies (digest, doc) VALUES (?, ?) ON CONFLICT DO NOTHING", d, packed); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO judged (scope, policy) VALUES (?1, ?2) ON CONFLICT (scope) DO UPDATE SET policy = ?2", scope, d)
	return err
}

// Policy gives the document that is the policy of an environment; nil if it has none.
func (s *Store) Policy(ctx context.Context, env engine.Key) ([]byte, error) {
	return s.policy(ctx, "SELECT digest, doc FROM policies JOIN judged ON policy = digest JOIN scopes ON scopes.id = scope WHERE app = ? AND env = ?", env.App, env.Env)
}

// PolicyNamed gives a document that is or was a policy, by its digest; nil if none was.
func (s *Store) PolicyNamed(ctx context.Context, d digest.Digest) ([]byte, error) {
	return s.policy(ctx, "SELECT digest, doc FROM policies WHERE digest = ?", d)
}

func (s *Store) policy(ctx context.Context, query string, args ...any) ([]byte, error) {
	var d digest.Digest
	var packed []byte
	err := s.reader.QueryRowContext(ctx, query, args...).Scan(&d, &packed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain("read a policy", err)
	}
	document, err := unpack(packed)
	if err != nil {
		return nil, s.damaged(fmt.Errorf("policy %s: %w", d, err))
	}
	if got := digest.FromBytes(document); got != d {
		return nil, fault.New(fault.Refused, "the policy %s is damaged in the database: its document has the digest %s", d, got).
			Mend("verify the record:  ashlar log verify; set the policy again:  ashlar policy set ENV FILE")
	}
	return document, nil
}
