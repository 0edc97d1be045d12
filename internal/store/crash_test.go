package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// committerDir tells the test binary to be the process that is killed.
const committerDir = "ASHLAR_TEST_COMMITTER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(committerDir); dir != "" {
		fmt.Fprintln(os.Stderr, commitForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// entriesOf is how many entries go with the commit that makes a version.
func entriesOf(version int64) int64 { return 1 + version%3 }

// commitForEver commits from where the store is and prints each version that was
// acknowledged, until it is killed.
func commitForEver(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(dir, "ashlar.db"))
	if err != nil {
		return err
	}
	_, version, err := s.State(ctx, production)
	for err == nil {
		entries := make([]record.Entry, entriesOf(version+1))
		for i := range entries {
			entries[i] = fact("rollout.started")
		}
		next := rollout.State{Ordered: int(version) + 1, KnownGood: knownGood(int(version) % 40)}
		if version, err = s.Commit(ctx, production, version, next, entries); err == nil {
			fmt.Println(version)
		}
	}
	return err
}

// knownGood makes a state large and hard to compress: commits of many pages.
func knownGood(n int) []digest.Digest {
	out := make([]digest.Digest, n)
	for i := range out {
		out[i] = digest.FromString(strconv.Itoa(i))
	}
	return out
}

// A kill -9 at any moment loses nothing that was acknowledged, and never parts a
// state from its entries.
func TestKilledWhileCommitting(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		acknowledged := killed(t, self, dir, 20+rand.IntN(60), time.Duration(rand.IntN(3000))*time.Microsecond)
		s := open(t, dir)
		state, version, err := s.State(t.Context(), production)
		if err != nil {
			t.Fatal(err)
		}
		if version < acknowledged {
			t.Errorf("round %d: version %d was acknowledged, %d is there", round, acknowledged, version)
		}
		if int64(state.Ordered) != version {
			t.Errorf("round %d: the state of version %d says %d", round, version, state.Ordered)
		}
		want := int64(0)
		for v := int64(1); v <= version; v++ {
			want += entriesOf(v)
		}
		report, err := s.VerifyRecord(t.Context())
		if err != nil || !report.OK() || report.Size != want {
			t.Errorf("round %d: version %d, want %d entries that verify: %+v (%v)", round, version, want, report, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed runs a committer, kills it a moment after it acknowledged n commits, and
// gives the last version that it acknowledged.
func killed(t *testing.T, self, dir string, n int, moment time.Duration) (acknowledged int64) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), committerDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if acknowledged, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if i == n {
			time.AfterFunc(moment, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the committer ended by itself: %v", err)
	}
	return acknowledged
}

// On a full disk a change is refused with what to do, nothing of it happened, and
// once there is space the store goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=384k"); err != nil {
		t.Fatalf("mount a small tmpfs (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	version, err := int64(0), error(nil)
	for err == nil {
		next := rollout.State{Ordered: int(version) + 1, KnownGood: knownGood(40)}
		var v int64
		if v, err = s.Commit(t.Context(), production, version, next, []record.Entry{fact("a"), fact("b")}); err == nil {
			version = v
		}
	}
	wantFault(t, err, fault.Unavailable, "no space left", s.path, "nothing was changed", "ashlar gc")
	if version == 0 {
		t.Fatal("not one commit before the disk was full")
	}
	check := func(version int64) {
		t.Helper()
		state, v, err := s.State(t.Context(), production)
		if err != nil || v != version || int64(state.Ordered) != version {
			t.Errorf("state %d at version %d, want %d (%v)", state.Ordered, v, version, err)
		}
		if report, err := s.VerifyRecord(t.Context()); err != nil || !report.OK() || report.Size != 2*version {
			t.Errorf("the record: %+v (%v), want %d entries", report, err, 2*version)
		}
	}
	check(version)
	backup := filepath.Join(dir, "backup")
	wantFault(t, s.Backup(t.Context(), backup), fault.Unavailable, "no space left")
	if _, err := os.Lstat(backup + ".partial"); !os.IsNotExist(err) {
		t.Errorf("the failed backup left something: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	next := rollout.State{Ordered: int(version) + 1}
	v, err := s.Commit(t.Context(), production, version, next, []record.Entry{fact("a"), fact("b")})
	if err != nil {
		t.Fatalf("with space again: %v", err)
	}
	check(v)
}
