package local

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestLogsAcrossRotation(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.LogSize, c.LogFiles = 64<<10, 3 })
	// About 125 bytes each: 1,200 lines fill two files and a half.
	w.start("lines", spec("lines", func(s *release.Spec) { s.Command = append(s.Command, "1200") }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for l, err := range w.Logs(ctx, Query{Env: env, ID: "lines", Tail: -1, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if n < 1200 && !strings.HasPrefix(l.Text, fmt.Sprintf("line %06d ", n)) || l.Stream != "stdout" || l.At.IsZero() {
			t.Fatalf("line %d is %+v", n, l)
		}
		if n++; n == 1201 {
			break
		}
	}
	if !exists(w.logFile(env, "lines")+".2") || exists(w.logFile(env, "lines")+".3") {
		t.Error("not rotated into three files")
	}
	var last []string
	for l := range w.Logs(ctx, Query{Env: env, Component: "guest", Tail: 2}) {
		last = append(last, strings.TrimRight(l.Text, " -"))
	}
	if diff := cmp.Diff([]string{"line 001199", "waiting"}, last); diff != "" {
		t.Error(diff)
	}
}

func TestLogsFollowEndsWithTheInstance(t *testing.T) {
	w := newWorld(t)
	w.start("exits", spec("exits"))
	var got []string
	for l, err := range w.Logs(t.Context(), Query{Env: env, ID: "exits", Tail: -1, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Text)
	}
	if diff := cmp.Diff([]string{"farewell"}, got); diff != "" {
		t.Error(diff)
	}
	if err := w.Remove(t.Context(), "exits"); err != nil {
		t.Fatal(err)
	}
	got = nil
	for l := range w.Logs(t.Context(), Query{Env: env, Tail: -1}) {
		got = append(got, l.ID+": "+l.Text)
	}
	if diff := cmp.Diff([]string{"exits: farewell"}, got); diff != "" {
		t.Errorf("after its removal: %s", diff)
	}
}

func TestLogsOfNobody(t *testing.T) {
	w := newWorld(t)
	for _, q := range []Query{{Env: env, ID: "nobody"}, {Env: env, ID: "../x"}, {Env: rollout.Key{App: "..", Env: "x"}}} {
		for _, err := range w.Logs(t.Context(), q) {
			if f := fault.Of(err); f == nil || f.Kind == fault.Internal {
				t.Errorf("%+v: %v", q, err)
			}
		}
	}
}

func TestOldLogsAreRemoved(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.KeepLogs = 2 })
	for n := range 4 {
		id := fmt.Sprint("exits-", n)
		w.start(id, spec("exits"))
		w.untilPhase(id, rollout.Exited)
		if err := w.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(w.cfg.LogDir, "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	if diff := cmp.Diff([]string{"exits-2.log", "exits-3.log"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestLogThatCannotBeWrittenIsSaid(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.cfg.LogDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := w.Start(t.Context(), env, order("plain"), spec("plain"))
	if f := fault.Of(err); f == nil || f.Kind != fault.Unavailable || f.What != "the instance's output file cannot be opened" {
		t.Errorf("error %v", err)
	}
}

// Amid a rotation the output's files are path and path.2: path.1 has become the one,
// and path not yet path.1.
func TestLogsAmidARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	for name, text := range map[string]string{path: "second\n", path + ".2": "first\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := tail{path: path, keep: -1}
	defer r.close()
	got, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	if text := string(bytes.Join(got, []byte(" "))); text != "first second" {
		t.Errorf("read %q", text)
	}
}
