package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// Every test here ends by newWorld's comparison of the host's mounts, links,
// control groups and processes with those before it.

func (w *world) start(id string, s release.Spec) {
	w.t.Helper()
	if err := w.Start(w.t.Context(), env, order(id), s); err != nil {
		w.t.Fatalf("start %s: %v", id, err)
	}
}

func order(id string) rollout.Instance { return rollout.Instance{ID: id, Component: "guest"} }

// until waits for changes until the instance is as wanted.
func (w *world) until(id string, want func(rollout.Observed) bool) rollout.Observed {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		o := w.find(id).observed()
		if want(o) {
			return o
		}
		select {
		case <-w.Changes():
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			w.t.Fatalf("instance %s stays %+v", id, o)
		}
	}
}

func (w *world) untilPhase(id string, p rollout.Phase) rollout.Observed {
	w.t.Helper()
	return w.until(id, func(o rollout.Observed) bool { return o.Phase == p })
}

// run starts a program that ends by itself and gives its exit and its output.
func (w *world) run(id string, s release.Spec) (rollout.Observed, []string) {
	w.t.Helper()
	w.start(id, s)
	o := w.untilPhase(id, rollout.Exited)
	var out []string
	for l, err := range w.Logs(w.t.Context(), Query{Env: env, ID: id, Tail: -1}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, l.Text)
	}
	return o, out
}

func TestLeakingProgramIsEndedWhole(t *testing.T) {
	w := newWorld(t)
	o, _ := w.run("leaks", spec("leaks"))
	if o.Exit.Code != 4 {
		t.Errorf("exit %+v", o.Exit)
	}
}

func TestFullTmpfsIsTheProgramsOwnTrouble(t *testing.T) {
	w := newWorld(t)
	o, out := w.run("fills", spec("fills"))
	if o.Exit.Code != 5 || !strings.Contains(strings.Join(out, "\n"), "no space left on device") {
		t.Errorf("exit %+v, output %q", o.Exit, out)
	}
}

func TestOutputWithoutNewline(t *testing.T) {
	w := newWorld(t)
	w.start("floods", spec("floods"))
	o := w.untilPhase("floods", rollout.Exited)
	bytes, last := 0, ""
	for l, err := range w.Logs(t.Context(), Query{Env: env, ID: "floods", Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Text) > 16<<10 {
			t.Fatalf("a piece of %d bytes", len(l.Text))
		}
		bytes += len(l.Text)
		last = l.Text
	}
	if bytes != 64<<16+len("flooded") || last != "flooded" {
		t.Errorf("%d bytes came, the last line %q", bytes, last)
	}
	for _, l := range o.Tail {
		if len(l) > 1100 {
			t.Errorf("a last line of %d bytes", len(l))
		}
	}
}

func TestOutOfMemoryIsSaid(t *testing.T) {
	w := newWorld(t)
	o, _ := w.run("eats", spec("eats", func(s *release.Spec) { s.Memory = 32 << 20 }))
	if !o.Exit.OOM || o.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", o.Exit)
	}
}

func TestSignalIsNamed(t *testing.T) {
	w := newWorld(t)
	o, _ := w.run("dies", spec("dies"))
	if o.Exit.Code == 0 || o.Exit.OOM {
		t.Errorf("exit %+v", o.Exit)
	}
}

func TestStopSignalOfTheSpec(t *testing.T) {
	w := newWorld(t)
	w.start("plain", spec("plain", func(s *release.Spec) { s.StopSignal = "SIGQUIT" }))
	for range w.Logs(t.Context(), Query{Env: env, ID: "plain", Follow: true, Tail: -1}) {
		break // it waits for signals
	}
	if err := w.Stop(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	o := w.untilPhase("plain", rollout.Exited)
	if o.Exit.Code != 0 || !strings.Contains(strings.Join(o.Tail, "\n"), "quit") {
		t.Errorf("exit %+v after %q", o.Exit, o.Tail)
	}
}

func TestWhatCannotStartIsExplained(t *testing.T) {
	tests := []struct {
		name   string
		change func(*release.Spec)
		want   string
	}{
		{"not there", func(s *release.Spec) { s.Command = []string{"/bin/nothing"} }, "the command /bin/nothing is not in the artifact"},
		{"not in PATH", func(s *release.Spec) { s.Command = []string{"nothing"} }, "the command nothing is not in the artifact: no directory of PATH has it"},
		{"not executable", func(s *release.Spec) { s.Command = []string{"/etc/plain"} }, "the command /etc/plain is not a program that the user may execute"},
		{"no work directory", func(s *release.Spec) { s.WorkDir = "/nowhere" }, "the working directory /nowhere is not in the artifact"},
		{"no mount point", func(s *release.Spec) {
			s.Tmpfs = append(s.Tmpfs, release.Tmpfs{Path: "/var/cache", Size: 1 << 20, Mode: 0o755})
		}, "the tree has no directory /var/cache to mount a tmpfs on"},
		{"no tree", func(s *release.Spec) { s.Tree = digest.FromString("nowhere") }, "the sealed tree " + digest.FromString("nowhere").String() + " is not stored"},
		{"no command", func(s *release.Spec) { s.Command = nil }, "component guest has no command"},
		{"no such signal", func(s *release.Spec) { s.StopSignal = "SIGNOTHING" }, `stop signal "SIGNOTHING" is not known`},
	}
	w := newWorld(t)
	for n, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			id := "bad-" + strconv.Itoa(n)
			err := w.Start(t.Context(), env, order(id), spec("plain", test.change))
			var f *fault.Error
			if !errors.As(err, &f) || !strings.HasPrefix(f.What, test.want) || f.Kind == fault.Internal {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if w.find(id) != nil || exists(w.instanceDir(id)) {
				t.Error("something of it is left")
			}
		})
	}
}

func TestGarbageEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	o, _ := w.run("garbage", spec("", func(s *release.Spec) { s.Command = []string{"/bin/garbage"} }))
	if o.Exit.Code == 0 || !strings.Contains(strings.Join(o.Tail, "\n"), "exec format error") {
		t.Errorf("exit %+v after %q", o.Exit, o.Tail)
	}
}

func TestStartGivenUpLeavesNothing(t *testing.T) {
	w := newWorld(t)
	for n := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*9*time.Millisecond)
		err := w.Start(ctx, env, order("early-"+strconv.Itoa(n)), spec("plain"))
		cancel()
		if known := w.find("early-"+strconv.Itoa(n)) != nil; known != (err == nil) {
			t.Errorf("error %v, known %v", err, known)
		}
	}
}

func TestSocketPathTooLong(t *testing.T) {
	w := newWorld(t)
	err := w.Start(t.Context(), env, order(strings.Repeat("x", 100)), spec("plain"))
	if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || !strings.Contains(f.Fix, "--dir") {
		t.Errorf("error %v", err)
	}
}

func TestProbeFollowsTheProgram(t *testing.T) {
	w := newWorld(t)
	w.start("flaps", spec("flaps", serving))
	o := w.untilPhase("flaps", rollout.Ready)
	get(t, "http://"+o.Address+"/sick")
	o = w.untilPhase("flaps", rollout.Unready)
	if want := "GET http://" + o.Address + "/healthz: answered 503 Service Unavailable: the database is down"; o.Probe != want {
		t.Errorf("probe %q, want %q", o.Probe, want)
	}
	w.reopen(t)
	if o := w.find("flaps").observed(); o.Phase != rollout.Unknown && o.Phase != rollout.Unready {
		t.Errorf("right after the new server came: %s", o.Phase)
	}
	w.untilPhase("flaps", rollout.Unready)
	get(t, "http://"+o.Address+"/well")
	if o := w.untilPhase("flaps", rollout.Ready); o.Probe != "" || o.Tail != nil {
		t.Errorf("ready with %q, %q", o.Probe, o.Tail)
	}
}

func get(t *testing.T, url string) {
	t.Helper()
	check := newCheck(release.Health{HTTP: url[strings.LastIndex(url, "/"):]}, strings.Split(url, "/")[2])
	if err := check(t.Context()); err != nil && !strings.Contains(err.Error(), "answer") {
		t.Fatal(err)
	}
}

// shimPID reads the shim's process ID from its lock file.
func (w *world) shimPID(id string) int {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.instanceDir(id), shim.LockFile))
	if err != nil {
		w.t.Fatal(err)
	}
	return atoi(w.t, string(b))
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestShimKilled(t *testing.T) {
	w := newWorld(t)
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
	w.kill(w.shimPID("serves"))
	o := w.untilPhase("serves", rollout.Exited)
	if o.Exit.Signal != "SIGKILL" || !strings.Contains(o.Probe, "shim") {
		t.Errorf("exit %+v, %q", o.Exit, o.Probe)
	}
}

func TestShimKilledWithoutServer(t *testing.T) {
	w := newWorld(t)
	w.start("stubborn", spec("stubborn", serving))
	w.untilPhase("stubborn", rollout.Ready)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.kill(w.shimPID("stubborn"))
	w.open(t)
	if o := w.untilPhase("stubborn", rollout.Exited); o.Exit.Signal != "SIGKILL" || o.Probe == "" {
		t.Errorf("exit %+v, %q", o.Exit, o.Probe)
	}
	if err := w.Remove(t.Context(), "stubborn"); err != nil {
		t.Error(err)
	}
}

func (w *world) kill(pid int) {
	w.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
}

func TestShimHungIsKilledByRemove(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.shimLimit = 200 * time.Millisecond })
	w.start("plain", spec("plain"))
	if err := unix.Kill(w.shimPID("plain"), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(t.Context(), "plain"); err != nil {
		t.Error(err)
	}
}

func TestProgramEndsWhileThereIsNoServer(t *testing.T) {
	w := newWorld(t)
	w.start("serves", spec("serves", serving))
	o := w.untilPhase("serves", rollout.Ready)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	get(t, "http://"+o.Address+"/exit")
	w.open(t)
	if o := w.untilPhase("serves", rollout.Exited); o.Exit.Code != 7 {
		t.Errorf("exit %+v", o.Exit)
	}
}

func TestDirectoryOfAnInstanceNeverBegunIsSwept(t *testing.T) {
	w := newWorld(t)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"half", goneDir + "x"} {
		if err := os.MkdirAll(filepath.Join(w.instancesDir(), dir, "root"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.open(t)
	if left, _ := os.ReadDir(w.instancesDir()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func configFile(t *testing.T, path, text string) release.ConfigFile {
	t.Helper()
	d, err := programs.store.PutBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return release.ConfigFile{Path: path, Digest: d, Size: int64(len(text)), Mode: 0o644}
}

// TestShimWithoutServerGivesUp: a server that dies between making and starting an
// instance takes the only order to start it with it.
func TestShimWithoutServerGivesUp(t *testing.T) {
	w := newWorld(t)
	i, _, _ := w.claim(env, order("plain"), spec("plain"))
	if err := w.make(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	i.birth(nil)
	if err := i.client().Close(); err != nil {
		t.Fatal(err)
	}
	w.cfg.shimLimit = time.Hour // nobody kills it
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := w.awaitShim(ctx, i.dir()); err != nil {
		t.Errorf("it is still there: %v", err)
	}
	w.cfg.shimLimit = time.Millisecond
	if exists(filepath.Join(w.runcRoot(), "plain")) || exists(filepath.Join(i.dir(), shim.ExitFile)) {
		t.Error("its container, or an exit status, is left")
	}
}

// TestNothingIsLeftWhenRemoveReturns does not give the kernel time to take away by itself what Remove forgot.
func TestNothingIsLeftWhenRemoveReturns(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		w.start("serves", spec("serves", serving))
		link := w.find("serves").meta.Link
		if err := w.Remove(t.Context(), "serves"); err != nil {
			t.Fatal(err)
		}
		groups, err := cgroupDirs(strings.TrimPrefix(w.cgroup("serves"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		if exists("/sys/class/net/"+link) || len(groups) > 0 || exists(w.instanceDir("serves")) || exists(filepath.Join(w.runcRoot(), "serves")) {
			t.Fatalf("link %v, control groups %v", exists("/sys/class/net/"+link), groups)
		}
	}
}

func TestIsolation(t *testing.T) {
	w := newWorld(t)
	_, out := w.run("looks", spec("looks", func(s *release.Spec) {
		s.Port = 8080
		s.Env = map[string]string{"GREETING": "hello there"}
		s.Files = []release.ConfigFile{configFile(t, "/etc/guest.conf", "of the release\n")}
	}))
	text := strings.Join(out, "\n")
	for _, want := range []string{
		"write /file: open /file: read-only file system",
		"write /dev/file: open /dev/file: read-only file system",
		"write /sys/file: open /sys/file: ",
		"write /etc/file: open /etc/file: read-only file system",
		"write /proc/sys/kernel/hostname: open /proc/sys/kernel/hostname: ",
		"write tmp: <nil>",
		"exec tmp: fork/exec /tmp/program: permission denied",
		"hostname: guest",
		"uid: 65532", "gid: 65532",
		"NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "Seccomp:\t2",
		"GREETING=hello there", "PORT=8080", "ASHLAR_INSTANCE=looks", "ASHLAR_COMPONENT=guest",
		"mount: operation not permitted",
		"network is unreachable",
		"null: <nil>", "hosts: 127.0.0.1 localhost", "config: of the release",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if exists("/proc/sys/vm/memfd_noexec") && !strings.Contains(text, "memfd exec: permission denied") && !strings.Contains(text, "memfd exec: operation not permitted") {
		t.Error("it can execute from memory")
	}
	for _, l := range out {
		if fields := strings.Fields(l); strings.HasPrefix(l, "/proc/self/mounts|") && !slices.Contains(strings.Split(fields[4], ","), "ro") && fields[2] != "/tmp" && fields[2] != "/proc" {
			t.Errorf("writable: %s", l)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
