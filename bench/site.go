package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const (
	serverStart = 20 * time.Second // until a server answers
	serverEnd   = 20 * time.Second // until it is gone after down --all
)

// site is the example under Ashlar: a copy of its sources, and a server of its own.
type site struct {
	ashlar string
	src    string // copy of the example
	state  string // state directory
	url    string

	instances int // that it declares

	env []string // of commands, besides our own

	server *exec.Cmd
	ended  chan error // the server's end
	log    bytes.Buffer
}

// command is one run of a command, as a user would see it.
type command struct {
	began   time.Time
	took    time.Duration
	written int64 // bytes that it sent to the disk
	out     []byte
}

// newSite copies the example, gives it a free port and starts a server.
func newSite(ctx context.Context, o options, dir string) (*site, error) {
	s := &site{ashlar: o.ashlar, src: filepath.Join(dir, "site"), state: filepath.Join(dir, "state"), env: []string{noKeys}, ended: make(chan error, 1)}
	if err := os.CopyFS(s.src, os.DirFS(o.site)); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.url = fmt.Sprintf("http://127.0.0.1:%d/", port)
	listen := regexp.MustCompile(`listen: 127\.0\.0\.1:\d+`)
	if err := edit(filepath.Join(s.src, "ashlar.yaml"), listen, fmt.Sprintf("listen: 127.0.0.1:%d", port)); err != nil {
		return nil, err
	}
	if s.instances, err = replicas(filepath.Join(s.src, "ashlar.yaml")); err != nil {
		return nil, err
	}
	s.server = exec.Command(s.ashlar, "server", "--dir", s.state)
	s.server.Stdout, s.server.Stderr = &s.log, &s.log
	if err := s.server.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.server.Wait() }()
	return s, s.awaitServer(ctx)
}

// replicas reads how many instances the example declares.
func replicas(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`replicas: (\d+)`).FindSubmatch(b)
	if found == nil {
		return 1, nil
	}
	return strconv.Atoi(string(found[1]))
}

func (s *site) awaitServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serverStart)
	defer cancel()
	for {
		if _, err := s.run(ctx, "status"); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("the server ended (%v):\n%s", err, s.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// run runs a command of the program beside the copied ashlar.yaml.
func (s *site) run(ctx context.Context, args ...string) (command, error) {
	return program(ctx, s.src, s.env, s.ashlar, append(args, "--dir", s.state)...)
}

// program runs a program, with variables besides our own, and measures what of it can be seen from outside.
func program(ctx context.Context, dir string, env []string, name string, args ...string) (command, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &out, &errs
	c := command{began: time.Now()}
	err := cmd.Run()
	c.took, c.out = time.Since(c.began), out.Bytes()
	if err != nil {
		return c, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(), errs.String())
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.written = u.Oublock * 512
	}
	return c, nil
}

func (s *site) deploy(ctx context.Context) (command, error) {
	return s.run(ctx, "deploy", "production", "--yes")
}

func (s *site) rollback(ctx context.Context) (command, error) {
	return s.run(ctx, "rollback", "production", "--yes")
}

// page is the file whose line changes.
func (s *site) page() string { return filepath.Join(s.src, "www", "index.html") }

// seal names the sealed tree of the example's component.
func (s *site) seal(ctx context.Context) (string, error) {
	c, err := s.run(ctx, "build", "--output", "json")
	if err != nil {
		return "", err
	}
	var built struct {
		Components []struct{ Seal string }
	}
	if err := json.Unmarshal(c.out, &built); err != nil {
		return "", err
	}
	if len(built.Components) != 1 {
		return "", fmt.Errorf("the example has %d components, want 1", len(built.Components))
	}
	return built.Components[0].Seal, nil
}

// entries reads the record from a moment on.
func (s *site) entries(ctx context.Context, since time.Time) ([]record.Entry, error) {
	c, err := s.run(ctx, "log", "--output", "json")
	if err != nil {
		return nil, err
	}
	var entries []record.Entry
	for dec := json.NewDecoder(bytes.NewReader(c.out)); dec.More(); {
		var e record.Entry
		if err := dec.Decode(&e); err != nil {
			return nil, err
		}
		if !e.Time.Before(since) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// down ends everything: instances, router and server. If that fails the server
// is killed, and what it left is told.
func (s *site) down() error {
	if s.server.Process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverEnd)
	defer cancel()
	_, err := s.run(ctx, "down", "--all", "--yes")
	if err == nil {
		select {
		case <-s.ended:
			return nil
		case <-ctx.Done():
			err = errors.New("the server did not end")
		}
	}
	return errors.Join(fmt.Errorf("take everything down: %w", err), s.server.Process.Kill())
}

// freePort finds a port that nobody listens on.
func freePort() (int, error) {
	addr, err := load.FreeAddr()
	if err != nil {
		return 0, err
	}
	at, err := netip.ParseAddrPort(addr)
	return int(at.Port()), err
}

// edit replaces what must be in a file.
func edit(path string, old *regexp.Regexp, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !old.Match(b) {
		return fmt.Errorf("%s has nothing like %s", path, old)
	}
	return os.WriteFile(path, old.ReplaceAllLiteral(b, []byte(text)), 0o644)
}
