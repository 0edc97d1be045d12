// Package docs_test runs the documentation: every console block of README.md and
// docs/tutorial.md, command by command in one shell session, as it is written there.
//
// In a block, a line that begins with "$ " is a command; lines after it that begin
// with "> " continue it; what follows, up to the next command, is what it prints,
// standard error included. Every command has to succeed. Nothing is skipped: a block
// shows all that is printed. What differs from run to run is made the same on both
// sides by the rules in normal.go.
//
// The commands run for real, as root, with a state directory of their own and the
// programs of bin/. All that they start is ended, also after a failure.
package docs_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repository is the directory of go.mod, seen from this package.
const repository = "../.."

var update = flag.Bool("update", false, "write into the documents what their commands print now; read the diff before keeping it")

func TestMain(m *testing.M) {
	flag.Parse()
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// build makes the programs that bin/ lacks, as `make build` does.
func build() error {
	for name, args := range map[string][]string{
		"ashlar":      {"./cmd/ashlar"},
		"ashlar-shim": {"./cmd/ashlar-shim"},
		"runc":        {"-tags", "seccomp", "github.com/opencontainers/runc"},
	} {
		if _, err := os.Stat(filepath.Join(repository, "bin", name)); err == nil {
			continue
		}
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", "bin/" + name}, args...)...)
		cmd.Dir = repository
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// TestReadme plays the README in a copy of what it needs of the repository.
func TestReadme(t *testing.T) {
	dir := temporary(t)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "examples", "hello"), os.DirFS(filepath.Join(repository, "examples", "hello"))); err != nil {
		t.Fatal(err)
	}
	play(t, dir, "README.md")
}

// TestTutorial plays the tutorial in an empty directory.
func TestTutorial(t *testing.T) { play(t, temporary(t), "docs/tutorial.md") }

// play runs a document in dir and compares what it says with what happens.
func play(t *testing.T, dir, document string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, document))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	if len(commands) == 0 {
		t.Fatalf("%s has no command in a console block", document)
	}
	s := open(t, dir)
	said, seen := newNormal(), newNormal()
	for i, c := range commands {
		got, status, err := s.run(c.text)
		if err != nil {
			t.Fatalf("%s:%d: $ %s: %v; it printed:\n%s", document, c.line, c.text, err, got)
		}
		if status != 0 {
			t.Fatalf("%s:%d: $ %s\nends with status %d and prints:\n%s", document, c.line, c.text, status, got)
		}
		if *update {
			commands[i].output = got
			continue
		}
		if diff := cmp.Diff(said.lines(c.output), seen.lines(got)); diff != "" {
			t.Fatalf("%s:%d: $ %s\nprints something else than the document says (-document +now):\n%s\nin full:\n%s", document, c.line, c.text, diff, got)
		}
	}
	if *update {
		if err := os.WriteFile(filepath.Join(repository, document), []byte(render(string(text), commands)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// temporary makes a directory with a path that is short enough for sockets.
func temporary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ashlar-docs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
