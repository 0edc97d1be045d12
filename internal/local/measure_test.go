package local

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// maxShim is what a shim may have in memory, in KiB.
const maxShim = 12 << 10

func TestShimIsSmall(t *testing.T) {
	w := newWorld(t)
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
	rss := memory(t, w.shimPID("serves"), "VmRSS")
	t.Logf("shim: VmRSS %d KiB, of which its own %d KiB, at most %d KiB", rss, memory(t, w.shimPID("serves"), "RssAnon"), memory(t, w.shimPID("serves"), "VmHWM"))
	if rss > maxShim {
		t.Errorf("a shim takes %d KiB, more than %d KiB", rss, maxShim)
	}
}

// memory reads a line of /proc/pid/status, in KiB.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// TestMeasure logs how long the life of a serving instance takes, as medians: from
// the call of Start to its program's main, to Start's return and to Ready; and the
// calls of Stop until the end is seen, and of Remove.
func TestMeasure(t *testing.T) {
	w := newWorld(t)
	f := figures{}
	for n := range 7 {
		id := "serves-" + strconv.Itoa(n)
		begin := time.Now()
		w.start(id, spec("serves", serving))
		f.add("start", time.Since(begin))
		w.untilPhase(id, rollout.Ready)
		f.add("ready", time.Since(begin))
		f.add("main", w.mainTime(id).Sub(begin))
		begin = time.Now()
		if err := w.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.untilPhase(id, rollout.Exited)
		f.add("stop", time.Since(begin))
		begin = time.Now()
		if err := w.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		f.add("remove", time.Since(begin))
	}
	for _, name := range []string{"main", "start", "ready", "stop", "remove"} {
		t.Logf("%-6s %v", name, f.median(name).Round(time.Millisecond/10))
	}
}

// mainTime is when the program says that its main began.
func (w *world) mainTime(id string) time.Time {
	w.t.Helper()
	for l := range w.Logs(w.t.Context(), Query{Env: env, ID: id, Tail: -1, Follow: true}) {
		if text, ok := strings.CutPrefix(l.Text, "started "); ok {
			ns, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			return time.Unix(0, ns)
		}
	}
	w.t.Fatal("it did not say when it started")
	return time.Time{}
}

// figures are medians.
type figures map[string][]time.Duration

func (f figures) add(name string, d time.Duration) { f[name] = append(f[name], d) }

func (f figures) median(name string) time.Duration {
	s := slices.Sorted(slices.Values(f[name]))
	return s[len(s)/2]
}
