package api

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/engine"
)

// Store is what the API reads, beside the engine: the same store.
type Store interface {
	engine.Store
	// Head is the size of the record and its root.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Appended gives a channel that is closed by the next change.
	Appended() <-chan struct{}
}

// follow emits the entries of env (the zero Key: all) from an index on, and then
// each new one, until ctx ends or emit fails.
func (s *Server) follow(ctx context.Context, env engine.Key, from int64, emit func(entry) error) error {
	for {
		appended := s.Store.Appended() // before looking, so that nothing is missed
		entries, err := s.Store.Entries(ctx, env, from, -1)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := emit(e); err != nil {
				return err
			}
			from = e.Index + 1
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-appended:
		}
	}
}
