package docs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	patience = 3 * time.Minute // for one command
	marker   = "--- end of a command of the documentation:"
)

// session is a shell that stays the same from command to command, as a reader's does.
type session struct {
	in    io.Writer
	lines chan string // what it prints; closed at its end
}

// open starts a shell in dir with a state directory of its own. What is run in it is
// ended and taken away when the test is over.
func open(t *testing.T, dir string) *session {
	t.Helper()
	bin, err := filepath.Abs(filepath.Join(repository, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "ASHLAR_DIR="+filepath.Join(dir, ".state"), "PATH="+bin+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC")
	shell := exec.Command("bash", "--noprofile", "--norc")
	shell.Dir, shell.Env = dir, env
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	shell.Stdout, shell.Stderr = w, w
	if err := errors.Join(shell.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	s := &session{in: in, lines: make(chan string, 64)}
	go s.read(r)
	t.Cleanup(func() { s.close(t, shell, in, filepath.Join(bin, "ashlar"), env) })
	return s
}

func (s *session) read(r io.ReadCloser) {
	defer close(s.lines)
	defer r.Close() //nolint:errcheck // it was only read
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		s.lines <- scanner.Text()
	}
}

// run gives what one command prints, and its exit status.
func (s *session) run(command string) (output string, status int, err error) {
	if _, err := fmt.Fprintf(s.in, "%s\nprintf '\\n%%s %%s\\n' '%s' $?\n", command, marker); err != nil {
		return "", 0, err
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	var out []string
	for {
		select {
		case line, open := <-s.lines:
			if !open {
				return strings.Join(out, "\n"), 0, errors.New("the shell has ended")
			}
			if rest, ok := strings.CutPrefix(line, marker); ok {
				status, err := strconv.Atoi(strings.TrimSpace(rest))
				return strings.TrimSuffix(strings.Join(out, "\n"), "\n"), status, err
			}
			out = append(out, line)
		case <-deadline.C:
			return strings.Join(out, "\n"), 0, fmt.Errorf("does not end within %s", patience)
		}
	}
}

// close ends the shell and everything that its commands started.
func (s *session) close(t *testing.T, shell *exec.Cmd, in io.Closer, ashlar string, env []string) {
	if err := down(ashlar, env); err != nil {
		t.Error(err)
	}
	err := in.Close()
	stop := time.AfterFunc(10*time.Second, func() { _ = shell.Process.Kill() })
	defer stop.Stop()
	for range s.lines {
		// What is printed while the session ends belongs to no command.
	}
	if err := errors.Join(err, shell.Wait()); err != nil {
		t.Errorf("the shell: %v", err)
	}
}

// noServer is the exit status of a command that finds no server.
const noServer = 6

// down ends instances, router and server. Where the server alone has died, another
// one takes the rest down.
func down(ashlar string, env []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, ashlar, args...)
		cmd.Env = env
		return cmd.CombinedOutput()
	}
	out, err := run("down", "--all", "--yes")
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == noServer {
		if routerEnds(ctx, filepath.Join(stateDir(env), "run", "router.sock")) {
			return nil
		}
		server := exec.CommandContext(ctx, ashlar, "server")
		server.Env = env
		if err := server.Start(); err != nil {
			return err
		}
		for range 100 {
			if out, err = run("down", "--all", "--yes"); err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(100 * time.Millisecond) // between attempts to reach a server that comes up
		}
		if err != nil {
			_ = server.Process.Kill()
		}
		err = errors.Join(err, server.Wait())
	}
	if err != nil {
		return fmt.Errorf("ashlar down: %w\n%s", err, out)
	}
	return nil
}

// routerEnds waits a little for a router that may be ending. Its socket goes with it.
func routerEnds(ctx context.Context, socket string) bool {
	for range 50 {
		if _, err := os.Stat(socket); err != nil || ctx.Err() != nil {
			return err != nil
		}
		time.Sleep(100 * time.Millisecond) // between looks at a file of another process
	}
	return false
}

func stateDir(env []string) string {
	dir := ""
	for _, e := range env {
		if d, ok := strings.CutPrefix(e, "ASHLAR_DIR="); ok {
			dir = d // the last one counts
		}
	}
	return dir
}
