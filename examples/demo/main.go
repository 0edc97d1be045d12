// Command demo is what `make up` ends with: the main job on a real example. It
// deploys nginx from Debian's archive, changes one line of its page, deploys again
// under load, rolls back under load, and prints what it measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
)

const (
	url      = "http://127.0.0.1:8080/"
	before   = "version v1"
	after    = "version v2"
	patience = time.Minute // for the server to come up
)

func main() {
	ashlar := flag.String("ashlar", "bin/ashlar", "the program")
	source := flag.String("site", "examples/site", "the example")
	work := flag.String("work", ".cache/demo/site", "where a copy of the example is made and changed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, demo{ashlar: *ashlar, source: *source, work: *work}); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct{ ashlar, source, work string }

func run(ctx context.Context, d demo) error {
	var err error
	if d.ashlar, err = filepath.Abs(d.ashlar); err != nil {
		return err
	}
	if err := d.copySite(); err != nil {
		return err
	}
	if err := d.startServer(ctx); err != nil {
		return err
	}
	if _, err := d.command(ctx, "deploy", "production", "--yes", "--reason", "the first version"); err != nil {
		return err
	}

	fmt.Println("\n# constant load from here on: 4 clients that keep their connection, 4 that open a new one each time")
	clients, err := load.Start(ctx, load.Config{URL: url, KeepAlive: 4, NewConn: 4, Rate: 400, For: 2 * time.Minute, Markers: []string{before, after}})
	if err != nil {
		return err
	}
	defer clients.Stop()
	if err := d.changeOneLine(); err != nil {
		return err
	}
	deploy, err := d.command(ctx, "deploy", "production", "--yes", "--reason", "one line changed")
	if err != nil {
		return err
	}
	middle := clients.Report()
	rollback, err := d.command(ctx, "rollback", "production", "--yes", "--reason", "the version before was better")
	if err != nil {
		return err
	}
	end := clients.Stop()
	if _, err := d.command(ctx, "status", "production"); err != nil {
		return err
	}
	if _, err := d.command(ctx, "log", "verify"); err != nil {
		return err
	}
	return tell(deploy, rollback, middle, end)
}

// tell prints what was measured, and fails if a request did.
func tell(deploy, rollback command, middle, end load.Report) error {
	fmt.Printf(`
# measured
requests            %d, failed %d, 99 %% within %s
one-line change     %.2f s from the command to all traffic on the new version
rollback            %.2f s from the command to all traffic on the version before
bytes written       %d kB for the release of the one-line change
the site is live at %s
end it with         make down
`, end.Requests, end.Failed, end.P99.Round(time.Millisecond), middle.AllOn(after).Sub(deploy.began).Seconds(),
		end.AllOn(before).Sub(rollback.began).Seconds(), deploy.written/1000, url)
	if end.Failed > 0 {
		return fmt.Errorf("%d requests failed: %s", end.Failed, strings.Join(end.FirstErrors, "; "))
	}
	return nil
}

// copySite makes a fresh copy of the example, so that changing a line changes no
// file of the repository. A lock that is there stays.
func (d demo) copySite() error {
	lock := filepath.Join(d.work, "ashlar.lock")
	kept, err := os.ReadFile(lock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(d.work); err != nil {
		return err
	}
	if err := os.CopyFS(d.work, os.DirFS(d.source)); err != nil {
		return err
	}
	if kept == nil {
		return nil
	}
	return os.WriteFile(lock, kept, 0o644)
}

func (d demo) changeOneLine() error {
	page := filepath.Join(d.work, "www", "index.html")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), before) {
		return fmt.Errorf("%s does not say %q", page, before)
	}
	fmt.Printf("\n$ sed -i 's/%s/%s/' www/index.html\n", before, after)
	return os.WriteFile(page, []byte(strings.Replace(string(text), before, after, 1)), 0o644)
}

// startServer starts a server that outlives this program, unless one runs.
func (d demo) startServer(ctx context.Context) error {
	if exec.CommandContext(ctx, d.ashlar, "version", "--output", "json").Run() == nil && d.serverAnswers(ctx) {
		return nil
	}
	dir := os.Getenv("ASHLAR_DIR")
	if dir == "" {
		dir = "/var/lib/ashlar"
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return err
	}
	logFile := filepath.Join(dir, "logs", "server.log")
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	fmt.Printf("$ ashlar server 2>%s &\n", logFile)
	server := exec.Command(d.ashlar, "server")
	server.Stdout, server.Stderr = out, out
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if d.serverAnswers(ctx) {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the server ended (%v); its log is %s", err, logFile)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("the server does not answer; its log is %s", logFile)
}

func (d demo) serverAnswers(ctx context.Context) bool {
	cmd := exec.CommandContext(ctx, d.ashlar, "status", "--app", "site")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	// "nothing was ever deployed" is an answer too; 6 is: no server.
	return err == nil || errors.As(err, &exit) && exit.ExitCode() != 6 && len(out) > 0
}

// command is one command that was run.
type command struct {
	began   time.Time
	written int64 // bytes it and the processes it spoke to sent to the disk
}

func (d demo) command(ctx context.Context, args ...string) (command, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.Contains(a, " ") {
			shown[i] = strconv.Quote(a)
		}
	}
	fmt.Printf("\n$ ashlar %s\n", strings.Join(shown, " "))
	cmd := exec.CommandContext(ctx, d.ashlar, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.work, os.Stdout, os.Stderr
	earlier := d.writtenByPID()
	c := command{began: time.Now()}
	err := cmd.Run()
	for pid, n := range d.writtenByPID() {
		c.written += n - earlier[pid]
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.written += usage.Oublock * 512
	}
	if err != nil {
		return c, fmt.Errorf("ashlar %s: %w", strings.Join(args, " "), err)
	}
	return c, nil
}

// writtenByPID gives what each process of Ashlar has sent to the disk so far, as
// the kernel accounts it (proc(5), /proc/pid/io, write_bytes).
func (d demo) writtenByPID() map[string]int64 {
	written := map[string]int64{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well-formed
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || filepath.Dir(exe) != filepath.Dir(d.ashlar) {
			continue
		}
		io, err := os.ReadFile(filepath.Join(filepath.Dir(link), "io"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(io)) {
			if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
				written[link], _ = strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			}
		}
	}
	return written
}
