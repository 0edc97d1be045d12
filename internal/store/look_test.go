package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestLook: who only looks sees what another process commits, changes nothing and makes
// nothing.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ashlar.db")
	if _, err := Look(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a database: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("looking made %v (%v)", left, err)
	}
	s := open(t, dir)
	looking, err := Look(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer looking.Close()
	before, _, err := looking.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, 0, "release.added")
	if after, _, err := looking.Head(t.Context()); err != nil || after != before+1 {
		t.Errorf("the record has %d entries, then %d (%v)", before, after, err)
	}
	if _, err := looking.Commit(t.Context(), production, 1, rollout.State{}, []record.Entry{fact("x")}); err == nil {
		t.Error("who only looks can change something")
	}
	if _, err := s.writer.ExecContext(t.Context(), "PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	_, err = Look(t.Context(), path)
	wantFault(t, err, fault.Conflict)
}
