package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var production = engine.Key{App: "site", Env: "production"}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(dir, "ashlar.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fact(kind string) record.Entry {
	return record.Entry{Time: time.Unix(1e9, 0), Actor: "root@host", Kind: kind, App: production.App, Env: production.Env}
}

func commit(t testing.TB, s *Store, version int64, kinds ...string) int64 {
	t.Helper()
	var entries []record.Entry
	for _, kind := range kinds {
		entries = append(entries, fact(kind))
	}
	next, err := s.Commit(t.Context(), production, version, rollout.State{Ordered: int(version) + 1}, entries)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func wantFault(t *testing.T, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a fault", err)
	}
	if f.Kind != kind || f.Fix == "" {
		t.Errorf("kind %s, fix %q; want %s and a fix", f.Kind, f.Fix, kind)
	}
	for _, part := range parts {
		if !strings.Contains(f.Error(), part) {
			t.Errorf("%q does not say %q", f.Error(), part)
		}
	}
}

func TestConforms(t *testing.T) {
	conformance.Store(t, false, func(t *testing.T) conformance.ServerStore { return open(t, t.TempDir()) })
}

func TestIsDurable(t *testing.T) {
	conformance.DurableStore(t, func(t *testing.T, dir string) (conformance.ServerStore, func() error) {
		s := open(t, dir)
		return s, s.Close
	})
}

// Whatever goes wrong while entries are appended takes the change with it.
func TestChangeAndEntriesAreOneTransaction(t *testing.T) {
	s := open(t, t.TempDir())
	version := commit(t, s, 0, "a")
	rel := engine.Stored{App: "site", Doc: []byte("{}"), Digest: digest.FromString("{}")}
	known := engine.Stored{App: "site", Doc: []byte("[]"), Digest: digest.FromString("[]")}
	if _, err := s.AddRelease(t.Context(), known, fact("release.added")); err != nil {
		t.Fatal(err)
	}
	for _, trigger := range []string{
		"BEFORE INSERT ON entries WHEN NEW.leaf LIKE '%last%'",
		"BEFORE UPDATE ON head",
	} {
		if _, err := s.writer.Exec("CREATE TRIGGER breaks " + trigger + " BEGIN SELECT RAISE (ABORT, 'broken on purpose'); END"); err != nil {
			t.Fatal(err)
		}
		size, root, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := s.Commit(t.Context(), production, version, rollout.State{Ordered: 99}, []record.Entry{fact("b"), fact("last")})
		_, err2 := s.AddRelease(t.Context(), rel, fact("last"))
		err3 := s.Append(t.Context(), []record.Entry{fact("b"), fact("last")})
		err4 := s.MarkCollected(t.Context(), known.Digest, fact("last"))
		for i, err := range []error{err1, err2, err3, err4} {
			if err == nil || !strings.Contains(err.Error(), "broken on purpose") {
				t.Errorf("change %d: %v", i+1, err)
			}
		}
		state, v, err := s.State(t.Context(), production)
		if err != nil || v != version || state.Ordered != 1 {
			t.Errorf("state %d at version %d (%v): a part of the change happened", state.Ordered, v, err)
		}
		if _, err := s.Release(t.Context(), rel.Digest); err == nil {
			t.Error("the release is there without its entry")
		}
		if r, err := s.Release(t.Context(), known.Digest); err != nil || r.Collected {
			t.Errorf("the release is marked without its entry (%v)", err)
		}
		if s2, r2, err := s.Head(t.Context()); err != nil || s2 != size || r2 != root {
			t.Errorf("the record has %d entries, want %d (%v)", s2, size, err)
		}
		if _, err := s.writer.Exec("DROP TRIGGER breaks"); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, s, version, "b")
}

func TestCancelledChangeChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, production, 0, rollout.State{}, []record.Entry{fact("a")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit = %v", err)
	}
	commit(t, s, 0, "a")
}

func TestAppendedWakesFollowers(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := s.Appended(), s.Appended()
	select {
	case <-a:
		t.Fatal("woken by nothing")
	default:
	}
	commit(t, s, 0, "a")
	for _, ch := range []<-chan struct{}{a, b} {
		select {
		case <-ch:
		default:
			t.Error("not woken by a commit that has returned")
		}
	}
	select {
	case <-s.Appended():
		t.Error("a new channel is closed already")
	default:
	}
}

func TestVerifyRecordNamesTheEntry(t *testing.T) {
	const n = 11
	for name, c := range map[string]struct {
		attack  string // SQL, with the triggers out of the way
		verdict record.Verdict
		first   int64
	}{
		"nothing":          {"SELECT 1", "", 0},
		"change an entry":  {`UPDATE entries SET leaf = replace(leaf, 'root@host', 'eve@host') WHERE idx = 4`, record.Altered, 4},
		"drop an entry":    {`DELETE FROM entries WHERE idx = 6`, record.Missing, 6},
		"drop the last":    {`DELETE FROM entries WHERE idx = 10`, record.Truncated, 10},
		"add an entry":     {`INSERT INTO entries SELECT 11, scope, leaf, hashes FROM entries WHERE idx = 10`, record.Inserted, 11},
		"swap two entries": {`CREATE TABLE t AS SELECT * FROM entries; UPDATE entries SET leaf = (SELECT leaf FROM t WHERE t.idx = 7 - entries.idx) WHERE idx IN (2, 5)`, record.Reordered, 2},
		"copy an entry":    {`UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE idx = 5) WHERE idx = 2`, record.Altered, 2},
		"change a hash":    {`UPDATE entries SET hashes = zeroblob(length(hashes)) WHERE idx = 8`, record.Rehashed, 8},
		"lose a hash":      {`UPDATE entries SET hashes = x'' WHERE idx = 3`, record.Rehashed, 3},
		"change the root":  {`UPDATE head SET root = zeroblob(32)`, record.Rewritten, -1},
		"grow the size":    {`UPDATE head SET size = 12`, record.Truncated, 11},
		"shrink the size":  {`UPDATE head SET size = 9`, record.Inserted, 9},
		"file elsewhere":   {`INSERT INTO scopes (app, env) VALUES ('x', 'y'); UPDATE entries SET scope = last_insert_rowid() WHERE idx = 7`, record.Misfiled, 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			version := int64(0)
			for range n {
				version = commit(t, s, version, "rollout.started")
			}
			for _, query := range []string{"DROP TRIGGER entries_are_not_changed", "DROP TRIGGER entries_are_not_removed", c.attack} {
				if _, err := s.writer.Exec(query); err != nil {
					t.Fatal(err)
				}
			}
			report, err := s.VerifyRecord(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var verdict record.Verdict
			var first int64
			if report.Finding != nil {
				verdict, first = report.Finding.Verdict, report.Finding.First
			}
			if verdict != c.verdict || first != c.first {
				t.Errorf("verdict %q at %d, want %q at %d: %+v", verdict, first, c.verdict, c.first, report.Finding)
			}
		})
	}
}

func TestRecordIsAppendOnly(t *testing.T) {
	s := open(t, t.TempDir())
	commit(t, s, 0, "a")
	for _, query := range []string{"UPDATE entries SET leaf = ''", "DELETE FROM entries"} {
		if _, err := s.writer.Exec(query); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestProofsFromStoredHashes(t *testing.T) {
	s := open(t, t.TempDir())
	version := int64(0)
	for range 9 {
		version = commit(t, s, version, "a", "b")
	}
	size, root, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hashes := s.Hashes(t.Context())
	for index := range size {
		leaves, err := s.Leaves(t.Context(), index, index+2)
		if err != nil || len(leaves) != int(min(2, size-index)) {
			t.Fatalf("%d leaves, %v", len(leaves), err)
		}
		proof, err := record.ProveInclusion(size, index, hashes)
		if err != nil {
			t.Fatal(err)
		}
		if err := record.CheckInclusion(proof, size, root, index, leaves[0]); err != nil {
			t.Error(err)
		}
		oldRoot, err := record.Root(index, hashes)
		if err != nil {
			t.Fatal(err)
		}
		consistent, err := record.ProveConsistency(index, size, hashes)
		if err != nil {
			t.Fatal(err)
		}
		if err := record.CheckConsistency(consistent, index, oldRoot, size, root); err != nil {
			t.Error(err)
		}
	}
	if leaves, err := s.Leaves(t.Context(), size, size+1); len(leaves) != 0 || err != nil {
		t.Errorf("after the end there are %q, %v", leaves, err)
	}
}

func TestBackup(t *testing.T) {
	s := open(t, t.TempDir())
	version := commit(t, s, 0, "a")
	dir := t.TempDir()
	path := filepath.Join(dir, "ashlar.db")
	if err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	commit(t, s, version, "after the backup")
	wantFault(t, s.Backup(t.Context(), path), fault.Conflict, path)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the backup left %v (%v)", files, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v (%v)", info.Mode(), err)
	}
	b := open(t, dir)
	if _, v, err := b.State(t.Context(), production); err != nil || v != version {
		t.Errorf("the backup has version %d, want %d (%v)", v, version, err)
	}
	if report, err := b.VerifyRecord(t.Context()); err != nil || !report.OK() || report.Size != 1 {
		t.Errorf("the backup's record: %+v (%v)", report, err)
	}
	commit(t, b, version, "b")
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ashlar.db")
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("CREATE TABLE t (x)"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path)
	wantFault(t, err, fault.Refused, path, "another program")

	dir = t.TempDir()
	s := open(t, dir)
	if _, err := s.writer.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), filepath.Join(dir, "ashlar.db"))
	wantFault(t, err, fault.Refused, "newer Ashlar")

	_, err = Open(t.Context(), filepath.Join(dir, "nowhere", "ashlar.db"))
	wantFault(t, err, fault.Unavailable, "nowhere")
}

func TestOpenNamesADamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ashlar.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path)
	wantFault(t, err, fault.Refused, path, "damaged", "backup")

	for name, damage := range map[string]func([]byte) []byte{
		"overwritten": func(b []byte) []byte { return append(b[:2*pageSize:2*pageSize], make([]byte, len(b)-2*pageSize)...) },
		"truncated":   func(b []byte) []byte { return b[:len(b)-3*pageSize] },
		"header":      func(b []byte) []byte { return append([]byte("SQLite format 4\x00"), b[16:]...) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "ashlar.db")
		s := open(t, dir)
		version := int64(0)
		for range 50 {
			version = commit(t, s, version, "a", "b")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err = Open(t.Context(), path); err == nil {
			t.Errorf("%s: opened", name)
			continue
		}
		wantFault(t, err, fault.Refused, path, "damaged")
	}
}

func TestOpenWithAnOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "50% of #1 & a? ü")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	version := commit(t, open(t, dir), 0, "a")
	info, err := os.Stat(filepath.Join(dir, "ashlar.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if _, v, err := open(t, dir).State(t.Context(), production); err != nil || v != version {
		t.Errorf("version %d, want %d (%v)", v, version, err)
	}
}

func TestSettings(t *testing.T) {
	s := open(t, t.TempDir())
	got := map[string]string{}
	for _, db := range map[string]*sql.DB{"writer": s.writer.DB, "reader": s.reader.DB} {
		for _, name := range []string{"journal_mode", "synchronous", "foreign_keys", "busy_timeout", "page_size"} {
			var value string
			if err := db.QueryRow("PRAGMA " + name).Scan(&value); err != nil {
				t.Fatal(err)
			}
			got[name] = value
		}
		want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "page_size": "1024"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	if _, err := s.reader.Exec("DELETE FROM releases"); err == nil {
		t.Error("a reading connection can write")
	}
}

// A statement's leaf and the entry that tells of it are one change; the leaf is in
// the tree, and not among the entries.
func TestAppendStatements(t *testing.T) {
	s := open(t, t.TempDir())
	commit(t, s, 0, "a")
	leaf := []byte(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{}}`)
	index, err := s.AppendStatements(t.Context(), [][]byte{leaf}, record.Entry{Actor: "somebody", Kind: "statement.logged"})
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := s.Leaves(t.Context(), index, index+2)
	if err != nil || len(leaves) != 2 || string(leaves[0]) != string(leaf) {
		t.Fatalf("%q, %v", leaves, err)
	}
	entries, err := s.Entries(t.Context(), engine.Key{}, index, -1)
	if err != nil || len(entries) != 1 || entries[0].Index != index+1 || entries[0].Data["statement"] != strconv.FormatInt(index, 10) {
		t.Errorf("%+v, %v", entries, err)
	}
	if report, err := s.VerifyRecord(t.Context()); err != nil || !report.OK() || report.Entries != index+2 {
		t.Errorf("%+v, %v", report, err)
	}
	for _, bad := range []string{"", "{}", `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{} }`} {
		if _, err := s.AppendStatements(t.Context(), [][]byte{leaf, []byte(bad)}, record.Entry{Actor: "somebody", Kind: "x"}); fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
