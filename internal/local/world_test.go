package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/vishvananda/netlink"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// The programs that every test of this package needs, built once.
var programs struct {
	runc, shim string
	store      *object.Store
	base       image.Tree    // every guest's artifact
	tree       digest.Digest // its seal
}

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) != "" {
		os.Exit(runServer())
	}
	switch os.Getenv(trialEnv) {
	case "keeper":
		os.Exit(runKeeper())
	case "client":
		os.Exit(runTrialClient())
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ashlar-local")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare the integration tests:", err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	programs.runc = "../../bin/runc"
	if _, err := os.Stat(programs.runc); err != nil {
		if err := build(programs.runc, "1", "-tags", "seccomp", "github.com/opencontainers/runc"); err != nil {
			return err
		}
	}
	programs.shim = filepath.Join(dir, "ashlar-shim")
	if err := build(programs.shim, "0", "-trimpath", "-ldflags=-s -w", "../../cmd/ashlar-shim"); err != nil {
		return err
	}
	guest := filepath.Join(dir, "guest")
	if err := build(guest, "0", "-trimpath", "-ldflags=-s -w", "./testdata/guest"); err != nil {
		return err
	}
	program, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	if programs.store, err = object.Open(filepath.Join(dir, "state")); err != nil {
		return err
	}
	if programs.base, err = tree(program); err != nil {
		return err
	}
	programs.tree, err = seal.Put(programs.store, programs.base)
	return err
}

// tree is the artifact: the program, and two files that are none.
func tree(program []byte) (image.Tree, error) {
	entries := []image.Entry{
		{Path: ".", Type: image.Dir, Mode: 0o755},
		{Path: "bin", Type: image.Dir, Mode: 0o755},
		{Path: "etc", Type: image.Dir, Mode: 0o755},
	}
	for _, f := range []struct {
		path  string
		mode  uint32
		bytes []byte
	}{
		{"bin/guest", 0o755, program},
		{"bin/garbage", 0o755, []byte("\x00no program\n")},
		{"etc/plain", 0o644, []byte("text\n")},
	} {
		d, err := programs.store.PutBytes(f.bytes)
		if err != nil {
			return image.Tree{}, err
		}
		entries = append(entries, image.Entry{Path: f.path, Type: image.File, Mode: f.mode, Digest: d, Size: int64(len(f.bytes))})
	}
	return image.Sorted(entries), nil
}

func build(out, cgo string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", out}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, b)
	}
	return nil
}

// world is a platform in directories of its own. When its test ends, everything
// is removed, and the host is as it was before.
type world struct {
	t   *testing.T
	cfg Config
	*Platform
}

var env = rollout.Key{App: "app", Env: "test"}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the integration tests of package local need root")
	}
	dir, err := os.MkdirTemp("", "ash") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cfg: Config{
		RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "logs"), Objects: programs.store.Path(),
		Runc: programs.runc, Shim: programs.shim, VolumeDir: filepath.Join(dir, "volumes"),
		Log:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
		reserve: -1, // so that tests know what lies ready
	}}
	for _, c := range change {
		c(&w.cfg)
	}
	sum := sha256.Sum256([]byte(w.cfg.RunDir))
	mark := hex.EncodeToString(sum[:3])
	before := hostState(t, w.cfg.RunDir, mark)
	w.open(t)
	t.Cleanup(func() {
		w.removeAll()
		if err := w.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
		if diff := cmp.Diff(before, hostStateSettled(t, w.cfg.RunDir, mark, before)); diff != "" {
			t.Errorf("left on the host (-before +after):\n%s", diff)
		}
		for _, dir := range []string{w.instancesDir(), w.blanksDir(), w.privateDir(), w.runcRoot()} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("files left in %s: %v", dir, left)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open(t *testing.T) {
	t.Helper()
	p, err := New(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Platform = p
}

// reopen lets a new server take over.
func (w *world) reopen(t *testing.T) {
	t.Helper()
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open(t)
}

func (w *world) removeAll() {
	w.mu.Lock()
	var ids []string
	for id := range w.instances {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for _, id := range ids {
		if err := w.Remove(context.Background(), id); err != nil {
			w.t.Errorf("remove %s: %v", id, err)
		}
	}
}

// hostState lists what an instance could leave behind: mounts, links, control
// groups and processes that have to do with the run directory or the server's short name.
func hostState(t *testing.T, runDir, mark string) []string {
	t.Helper()
	var out []string
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, runDir) {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	out = append(out, links(t, mark)...)
	groups, err := cgroupDirs(filepath.Join("ashlar", mark))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		out = append(out, "cgroup "+g)
	}
	return append(out, processes(t, runDir)...)
}

func links(t *testing.T, mark string) []string {
	t.Helper()
	all, err := dump(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	bridge := -1
	for _, l := range all {
		if l.Attrs().Name == "ash-"+mark {
			bridge = l.Attrs().Index
			out = append(out, "bridge "+l.Attrs().Name)
		}
	}
	for _, l := range all {
		if bridge >= 0 && l.Attrs().MasterIndex == bridge {
			out = append(out, "link "+l.Attrs().Name)
		}
	}
	sort.Strings(out)
	return out
}

// processes finds shims, runtimes and programs: by argument, or by what they have as root.
func processes(t *testing.T, runDir string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		group, _ := os.ReadFile(filepath.Join(d, "cgroup"))
		text := strings.ReplaceAll(string(args), "\x00", " ")
		sum := sha256.Sum256([]byte(runDir))
		if strings.Contains(text, runDir) || strings.Contains(string(group), "/ashlar/"+hex.EncodeToString(sum[:3])+"/") {
			out = append(out, fmt.Sprintf("process %d %s", pid, text))
		}
	}
	return out
}

// hostStateSettled gives the kernel a moment, and the init process one to reap what
// a killed shim left to it.
func hostStateSettled(t *testing.T, runDir, mark string, want []string) []string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := hostState(t, runDir, mark)
		if cmp.Equal(got, want) || time.Now().After(deadline) {
			return got
		}
		<-time.After(5 * time.Millisecond)
	}
}

// spec is a guest's.
func spec(behaviour string, change ...func(*release.Spec)) release.Spec {
	s := release.Spec{
		Tree:    programs.tree,
		Command: []string{"/bin/guest", behaviour}, WorkDir: "/", UID: 65532, GID: 65532,
		StopSignal: "SIGTERM", StopGraceMS: 10_000, PIDs: 64,
		Tmpfs: []release.Tmpfs{{Path: "/tmp", Size: 32 << 20, Mode: 0o1777}},
	}
	for _, c := range change {
		c(&s)
	}
	laid := s
	laid.Tmpfs = []release.Tmpfs{{Path: "/tmp"}} // what a test adds has no place prepared
	s.Settings = settings(laid)
	return s
}

// settings seals a settings layer.
func settings(s release.Spec) digest.Digest {
	t, err := seal.SettingsTree(programs.base, s)
	if err != nil {
		panic(err)
	}
	d, err := seal.Put(programs.store, t)
	if err != nil {
		panic(err)
	}
	return d
}

func serving(s *release.Spec) {
	s.Port = 8080
	s.Health = &release.Health{HTTP: "/healthz", IntervalMS: 50, TimeoutMS: 1000, Successes: 1, Failures: 3, StartMS: 30_000}
}

func conformanceSpec(b conformance.Behaviour) release.Spec {
	switch b {
	case conformance.Serves, conformance.Sick:
		return spec(string(b), serving)
	case conformance.Stubborn:
		return spec(string(b), serving, func(s *release.Spec) { s.StopGraceMS = 300 })
	case conformance.Holds:
		return spec(string(conformance.Plain), func(s *release.Spec) {
			s.Volumes = []release.Mount{{Path: "/data", Volume: "data", Mode: release.VolumeExclusive}}
		})
	case conformance.Shares:
		return spec(string(conformance.Plain), func(s *release.Spec) {
			s.Volumes = []release.Mount{{Path: "/files", Volume: "files", Mode: release.VolumeShared}}
		})
	case conformance.Missing:
		return spec(string(b), func(s *release.Spec) { s.Command[0] = "/bin/nothing" })
	}
	return spec(string(b))
}

func TestPlatform(t *testing.T) {
	conformance.Platform(t, func(t *testing.T) conformance.PlatformWorld {
		w := newWorld(t)
		return conformance.PlatformWorld{
			Platform: w,
			Spec:     conformanceSpec,
			Reopen: func(t *testing.T) engine.Platform {
				w.reopen(t)
				return w
			},
		}
	})
}
