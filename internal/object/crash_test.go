package object

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// childDir in the environment makes the test binary a process that stores
// objects below it until it is killed.
const childDir = "ASHLAR_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := storeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// storeForEver commits batches, saying a line before each step.
func storeForEver(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	for round := 0; ; round++ {
		b := s.NewBatch()
		for i := range 2 * fewObjects {
			content := fmt.Sprint(round, " ", i, " ") + strings.Repeat("x", i*1000)
			d, _, err := b.Put(strings.NewReader(content), -1)
			if err != nil {
				return err
			}
			if err := b.SetRef("batch", fmt.Sprint(round, "-", i), d); err != nil {
				return err
			}
			fmt.Println("put", round, i)
		}
		if round%2 == 1 {
			fmt.Println("settle", round)
			if err := b.Settle(); err != nil {
				return err
			}
		}
		fmt.Println("commit", round)
		if err := b.Commit(); err != nil {
			return err
		}
		fmt.Println("done", round)
		if err := s.SetRef("round", strconv.Itoa(round), digest.FromString("x")); err != nil {
			return err
		}
	}
}

// startChild runs a child until it has said stop.
func startChild(t *testing.T, dir, stop string) (kill func() (lastDone int)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	done := -1
	note := func(line string) {
		if n, ok := strings.CutPrefix(line, "done "); ok {
			done, _ = strconv.Atoi(n)
		}
	}
	for lines.Scan() {
		note(lines.Text())
		if lines.Text() == stop {
			break
		}
	}
	return func() int {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			note(lines.Text())
		}
		_ = cmd.Wait() // it was killed: the error is the point
		return done
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	stops := []string{"put 0 0", "put 1 40", "settle 1", "commit 0", "commit 1", "commit 2", "done 0"}
	for range 4 {
		stops = append(stops, fmt.Sprintf("put %d %d", r.IntN(3), r.IntN(2*fewObjects)))
	}
	for _, stop := range stops {
		dir := t.TempDir()
		done := startChild(t, dir, stop)()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		err = s.Walk(func(d digest.Digest, _ int64) error { count++; return s.Verify(d) })
		if err != nil {
			t.Errorf("killed after %q: %v", stop, err)
		}
		if want := (done + 1) * 2 * fewObjects; count < want {
			t.Errorf("killed after %q: %d objects, but %d were committed", stop, count, want)
		}
		if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
			t.Errorf("killed after %q: left behind %v, %v", stop, left, err)
		}
		if _, err := s.Refs("round"); err != nil {
			t.Errorf("killed after %q: %v", stop, err)
		}
		refs, err := s.Refs("batch")
		if want := (done + 1) * 2 * fewObjects; err != nil || len(refs) < want {
			t.Errorf("killed after %q: %d references, but %d were committed: %v", stop, len(refs), want, err)
		}
		if missing := s.Missing(slices.Collect(maps.Values(refs))); len(missing) > 0 {
			t.Errorf("killed after %q: references lead to %d objects that are not stored", stop, len(missing))
		}
	}
}

func TestProcessesStoreTheSameAtOnce(t *testing.T) {
	dir := t.TempDir()
	one, two := startChild(t, dir, "put 0 3"), startChild(t, dir, "done 1")
	s, err := Open(dir) // must not take away what living processes are writing
	if err != nil {
		t.Fatal(err)
	}
	three := startChild(t, dir, "done 1")
	for _, kill := range []func() int{one, two, three} {
		if kill() < 0 {
			t.Error("a process stored nothing")
		}
	}
	if err := s.Walk(func(d digest.Digest, _ int64) error { return s.Verify(d) }); err != nil {
		t.Error(err)
	}
}

func TestUmaskDoesNotMatter(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s := newStore(t)
	d, err := s.PutBytes([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	path, _ := s.File(d)
	if fi, err := os.Stat(path); err != nil || fi.Mode() != objectMode {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestOpenLeavesALivingSession(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	d, _, err := b.Put(strings.NewReader("x"), -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil || !s.Has(d) {
		t.Errorf("Commit: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
		t.Errorf("Close left %v, %v", left, err)
	}
}

// smallDisk mounts a file system with that option until the test ends.
func smallDisk(t *testing.T, option string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, option); err != nil {
		t.Fatal("mount a small file system (this test needs root):", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskFull(t *testing.T) {
	const size = 4 << 20
	for name, c := range map[string]struct {
		option string
		object int // bytes of each object of the batch
	}{
		"no space, small objects": {"size=4m", 100_000},
		"no space, large objects": {"size=4m", 3 << 20},
		"no inodes":               {"size=4m,nr_inodes=40", 10},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(smallDisk(t, c.option), "d")
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			kept, err := s.PutBytes([]byte("stored before the disk was full"))
			if err != nil {
				t.Fatal(err)
			}
			free := freeBytes(t, dir)
			b := s.NewBatch()
			for i := 0; err == nil && i < 2*size; i++ {
				_, _, err = b.Put(strings.NewReader(fmt.Sprint(i)+strings.Repeat("x", c.object)), -1)
			}
			wantDiskFull(t, err)
			b.Discard()
			wantObjects(t, s, kept)
			wantNoTemps(t, s)
			if got := freeBytes(t, dir); got != free {
				t.Errorf("%d bytes are free, %d were before", got, free)
			}
			after, err := s.PutBytes([]byte("fits again"))
			if err != nil {
				t.Fatal(err)
			}
			wantObjects(t, s, kept, after)
		})
	}
}

func TestDiskFullInOnePut(t *testing.T) {
	s, err := Open(smallDisk(t, "size=2m"))
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("x", 3<<20)
	_, _, err = s.Put(strings.NewReader(content), -1)
	wantDiskFull(t, err)
	_, err = s.PutVerified(strings.NewReader(content), digest.FromString(content), -1)
	wantDiskFull(t, err)
	wantObjects(t, s)
	wantNoTemps(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func wantDiskFull(t *testing.T, err error) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Kind != fault.Unavailable || !errors.Is(err, unix.ENOSPC) || f.Fix == "" || !strings.Contains(f.What, "disk is full") {
		t.Fatalf("got %v, want an Unavailable fault about the full disk", err)
	}
}

func freeBytes(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree * uint64(st.Bsize)
}

func TestLocks(t *testing.T) {
	s, other := newStore(t), (*Store)(nil)
	other, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	one, err := s.Share(ctx)
	if err != nil {
		t.Fatal(err)
	}
	two, err := other.Share(ctx)
	if err != nil {
		t.Fatal(err)
	}
	two()
	two() // once more does no harm
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := other.Exclusive(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Exclusive beside Share: %v, want to wait until the context ends", err)
	}
	got := make(chan func())
	go func() {
		unlock, err := other.Exclusive(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- unlock
	}()
	one()
	unlock := <-got
	late, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := s.Share(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Share beside Exclusive: %v, want to wait until the context ends", err)
	}
	unlock()
}
