package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// trialEnv makes the test program the keeper of a trial, or one who asks for a trial:
// then the trial is in trialOrder.
const (
	trialEnv   = "ASHLAR_TEST_TRIAL"
	trialOrder = "ASHLAR_TEST_ORDER"
)

func runKeeper() int {
	if err := KeepTrial(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runTrialClient() int {
	var t Trial
	err := json.Unmarshal([]byte(os.Getenv(trialOrder)), &t)
	if err == nil {
		t.Keeper = keeper()
		if t.Lock, err = lockFile(t.Dir); err == nil {
			err = t.Run(context.Background())
		}
	}
	fmt.Println(err)
	return 0
}

// keeper is the test program: it knows by its environment what it is for.
func keeper() []string {
	if err := os.Setenv(trialEnv, "keeper"); err != nil {
		panic(err)
	}
	return []string{"keeper"}
}

func lockFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return f, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// newTrial is a trial of a guest. When the test ends, nothing of it may be left.
func newTrial(t *testing.T, behaviour ...string) Trial {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "trial")
	runc, err := filepath.Abs(programs.runc)
	if err != nil {
		t.Fatal(err)
	}
	s := release.Spec{
		Tree: debianTree(t), Command: append([]string{"/bin/guest"}, behaviour...), WorkDir: "/", UID: 65532, GID: 65532,
		Env: map[string]string{"GREETING": "hello"},
	}
	trial := Trial{Dir: dir, Objects: programs.store.Path(), Runc: runc, Name: "guest", Spec: s, Timeout: 20 * time.Second, Keeper: keeper()}
	t.Cleanup(func() {
		if left := trial.left(t); len(left) > 0 {
			t.Errorf("left of the trial: %v", left)
		}
		if err := os.Unsetenv(trialEnv); err != nil {
			t.Error(err)
		}
	})
	return trial
}

// debianTree is the guest's artifact with the directories that all artifacts of Debian
// packages have.
func debianTree(t *testing.T) digest.Digest {
	t.Helper()
	entries := slices.Clone(programs.base.Entries)
	for _, name := range []string{"dev", "proc", "sys"} {
		entries = append(entries, image.Entry{Path: name, Type: image.Dir, Mode: 0o755})
	}
	d, err := seal.Put(programs.store, image.Sorted(entries))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// left lists what there is of a trial: processes, mounts in any namespace, control
// groups, files.
func (t Trial) left(test *testing.T) []string {
	test.Helper()
	out := processesOf(test, t)
	infos, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		test.Fatal(err)
	}
	for _, name := range infos {
		if b, _ := os.ReadFile(name); strings.Contains(string(b), t.Dir) { // it may be gone meanwhile
			out = append(out, "mount in "+name)
		}
	}
	groups, err := cgroupDirs(filepath.Join("ashlar", t.unit()))
	if err != nil {
		test.Fatal(err)
	}
	for _, g := range groups {
		out = append(out, "control group "+g)
	}
	if exists(t.Dir) {
		out = append(out, t.Dir)
	}
	return out
}

func processesOf(test *testing.T, t Trial) []string {
	test.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		test.Fatal(err)
	}
	var out []string
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		group, _ := os.ReadFile(filepath.Join(d, "cgroup"))
		if strings.Contains(string(args), t.Dir) || strings.Contains(string(group), "/ashlar/"+t.unit()) {
			out = append(out, "process "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return out
}

// settles waits until nothing of a trial is left that goes by itself.
func (t Trial) settles(test *testing.T, gone func() []string) {
	test.Helper()
	var left []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if left = gone(); len(left) == 0 {
			return
		}
	}
	test.Fatalf("left of the trial: %v", left)
}

// TestTrial runs tests that pass and fail in every way there is. Nothing is left of any.
func TestTrial(t *testing.T) {
	tests := []struct {
		name    string
		command []string
		change  func(*Trial)
		kind    fault.Kind // empty: it passes
		says    []string
	}{
		{"passes", []string{"tried", "word", "two"}, nil, "", nil},
		{"fails", []string{"exits"}, nil, fault.Refused, []string{"the run test ended with status 3", "| farewell", "command: /bin/guest exits"}},
		{"takes too long", []string{"hangs"}, func(t *Trial) { t.Timeout = 700 * time.Millisecond }, fault.Refused, []string{"the run test did not end within 700ms"}},
		{"leaves children", []string{"leaks"}, nil, fault.Refused, []string{"the run test ended with status 4"}},
		{"eats memory", []string{"eats"}, func(t *Trial) { t.Spec.Memory = 32 << 20 }, fault.Refused, []string{"the run test ended with status 137"}},
		{"no such program", []string{}, func(t *Trial) { t.Spec.Command = []string{"/bin/nothing"} }, fault.Refused, []string{"the run test ended with status", "/bin/nothing"}},
		{"no such tree", []string{"exits"}, func(t *Trial) { t.Spec.Tree = digest.FromString("nowhere") }, fault.NotFound, []string{"is not stored"}},
		{"no runtime", []string{"exits"}, func(t *Trial) { t.Runc = "/nowhere/runc" }, fault.Unavailable, []string{"/nowhere/runc"}},
		{"no place", []string{"exits"}, func(t *Trial) { t.Dir = "/proc/nowhere" }, fault.Unavailable, []string{"there is no place for the run test"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			trial := newTrial(t, test.command...)
			if test.change != nil {
				test.change(&trial)
			}
			err := trial.Run(t.Context())
			if test.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Kind != test.kind {
				t.Fatalf("got %v, want a fault of kind %s", err, test.kind)
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("it does not say %q:\n%v", want, err)
				}
			}
			if left := trial.left(t); len(left) > 0 {
				t.Errorf("left when it returns: %v", left)
			}
		})
	}
}

// TestTrialOutputIsBounded: of a program that writes without end, the end is told.
func TestTrialOutputIsBounded(t *testing.T) {
	trial := newTrial(t, "floods", "and fails")
	err := trial.Run(t.Context())
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || len(err.Error()) > 2*trialOutput || !strings.Contains(err.Error(), "| flooded") {
		t.Errorf("%d bytes of %.200v", len(fmt.Sprint(err)), err)
	}
}

// TestTrialInterrupted: who is interrupted takes the trial away before he leaves.
func TestTrialInterrupted(t *testing.T) {
	trial := newTrial(t, "hangs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- trial.Run(ctx) }()
	trial.begins(t)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := trial.left(t); len(left) > 0 {
		t.Errorf("left when it returns: %v", left)
	}
}

// begins waits until the program of the trial runs.
func (t Trial) begins(test *testing.T) {
	test.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if slices.ContainsFunc(processesOf(test, t), func(p string) bool { return strings.HasPrefix(p, "process /bin/guest ") }) {
			return
		}
		if time.Now().After(deadline) {
			test.Error("the trial does not begin")
			return
		}
	}
}

// TestTrialNeedsRoot: who is not root is told what to do.
func TestTrialNeedsRoot(t *testing.T) {
	trial := newTrial(t, "exits")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread that is not root any more ends
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		done <- trial.Run(context.Background())
	}()
	err := <-done
	if f := fault.Of(err); f == nil || f.Kind != fault.Unavailable || !strings.Contains(f.What, "needs root") || !strings.Contains(f.Fix, "ashlar build --untested") {
		t.Errorf("got %v", err)
	}
}

// TestKeeperIsStartedByABuild: by hand it would mount over the host's /proc.
func TestKeeperIsStartedByABuild(t *testing.T) {
	if f := fault.Of(KeepTrial(t.Context(), strings.NewReader("{}"), t.Output())); f == nil || f.Kind != fault.Invalid {
		t.Errorf("got %v", f)
	}
}

// client has another process ask for the trial, and waits until that has begun.
func (t Trial) client(test *testing.T) (cmd *exec.Cmd, said func() string) {
	test.Helper()
	order, err := json.Marshal(t)
	if err != nil {
		test.Fatal(err)
	}
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), trialEnv+"=client", trialOrder+"="+string(order))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		test.Fatal(err)
	}
	t.begins(test)
	return cmd, out.String
}

// TestTrialOfAClientThatIsKilled: nothing is left, without anybody's doing. The lock is
// held until then.
func TestTrialOfAClientThatIsKilled(t *testing.T) {
	trial := newTrial(t, "hangs")
	cmd, _ := trial.client(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait() // not for the end of its output, which others may hold
	for {
		lock, err := lockFile(trial.Dir)
		if err == nil {
			if left := trial.left(t); len(left) > 0 {
				t.Errorf("the lock is free, and there is %v", left)
			}
			_ = lock.Close()
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatal(err)
		}
		_ = lock.Close()
		<-time.After(5 * time.Millisecond)
	}
	trial.settles(t, func() []string { return trial.left(t) })
}

// TestKeeperKilled: the kernel ends what ran, the client says what happened, and the next
// trial takes the rest away.
func TestKeeperKilled(t *testing.T) {
	trial := newTrial(t, "hangs")
	cmd, said := trial.client(t)
	var children []string
	for _, task := range tasks(t, cmd.Process.Pid) { // whichever thread it was started by
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", cmd.Process.Pid, task))
		children = append(children, strings.Fields(string(b))...)
	}
	if len(children) != 1 {
		t.Fatalf("children of the client: %v", children)
	}
	keeper, err := strconv.Atoi(children[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said(), "the process of the run test ended before the test: signal: killed") {
		t.Errorf("%v, %s", err, said())
	}
	trial.settles(t, func() []string { return processesOf(t, trial) })
	trial.Spec.Command = []string{"/bin/guest", "tried", "word", "two"}
	if err := trial.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string(nil), trial.left(t)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func tasks(t *testing.T, pid int) []string {
	t.Helper()
	dirs, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range dirs {
		out = append(out, d.Name())
	}
	return out
}
