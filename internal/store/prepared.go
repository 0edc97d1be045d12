package store

import (
	"context"
	"database/sql"
	"errors"
)

// often are the statements that every change and every look of the engine asks for.
// They are kept compiled: SQLite takes longer to compile one than to run it.
var often = struct{ write, read []string }{
	write: []string{selectHead, updateHead, selectHashes, insertEntry, selectScope, updateState},
	read:  []string{selectHead, selectHashes, selectState, selectEntriesOf, selectRelease},
}

// database is connections with their compiled statements.
type database struct {
	*sql.DB
	compiled map[string]*sql.Stmt // by text; not changed once the database is open
}

func openDatabase(source string) (database, error) {
	db, err := sql.Open("sqlite", source)
	return database{db, map[string]*sql.Stmt{}}, err
}

// compile keeps statements compiled. Their tables have to be there.
func (d database) compile(ctx context.Context, queries []string) error {
	for _, q := range queries {
		s, err := d.PrepareContext(ctx, q)
		if err != nil {
			return err
		}
		d.compiled[q] = s
	}
	return nil
}

// Close closes the statements and the connections.
func (d database) Close() error {
	var errs []error
	for _, s := range d.compiled {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.DB.Close())...)
}

// QueryContext is that of sql.DB.
func (d database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := d.compiled[query]; s != nil {
		return s.QueryContext(ctx, args...)
	}
	return d.DB.QueryContext(ctx, query, args...)
}

// QueryRowContext is that of sql.DB.
func (d database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := d.compiled[query]; s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return d.DB.QueryRowContext(ctx, query, args...)
}

// begin begins a transaction.
func (d database) begin(ctx context.Context, o *sql.TxOptions) (transaction, error) {
	tx, err := d.BeginTx(ctx, o)
	return transaction{tx, d.compiled}, err
}

// transaction is one that knows the compiled statements.
type transaction struct {
	*sql.Tx
	compiled map[string]*sql.Stmt
}

// QueryContext is that of sql.Tx.
func (t transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := t.compiled[query]; s != nil {
		return t.StmtContext(ctx, s).QueryContext(ctx, args...)
	}
	return t.Tx.QueryContext(ctx, query, args...)
}

// QueryRowContext is that of sql.Tx.
func (t transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := t.compiled[query]; s != nil {
		return t.StmtContext(ctx, s).QueryRowContext(ctx, args...)
	}
	return t.Tx.QueryRowContext(ctx, query, args...)
}

// ExecContext is that of sql.Tx.
func (t transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := t.compiled[query]; s != nil {
		return t.StmtContext(ctx, s).ExecContext(ctx, args...)
	}
	return t.Tx.ExecContext(ctx, query, args...)
}
