package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

const (
	webUser      = 33                     // www-data of Debian
	inPlaceStart = 10 * time.Second       // until a restarted nginx answers
	askAgain     = 500 * time.Microsecond // between attempts to reach it
)

// inPlace is the baseline: the same nginx with the same files and nginx.conf in a
// plain directory, as many of it as the example declares, run in a chroot, updated by
// rsync and a restart of all of them at once, which is the fastest that can be done.
type inPlace struct {
	root  string // what runs
	src   string // where the change is made
	url   string // of the first
	nginx []*nginx
}

// nginx is one of them.
type nginx struct {
	url   string
	conf  string // as it sees it
	cmd   *exec.Cmd
	ended chan error
	log   bytes.Buffer
}

// newInPlace exports the sealed tree and starts nginx in it.
func newInPlace(ctx context.Context, s *site, sealed string, dir string) (*inPlace, error) {
	p := &inPlace{root: filepath.Join(dir, "in-place"), src: filepath.Join(dir, "in-place-src")}
	if err := export(s.state, digest.Digest(sealed), p.root); err != nil {
		return nil, fmt.Errorf("export the sealed tree: %w", err)
	}
	if err := os.CopyFS(p.src, os.DirFS(filepath.Join(s.src, "www"))); err != nil {
		return nil, err
	}
	for range s.instances {
		port, err := freePort()
		if err != nil {
			return p, err
		}
		n := &nginx{url: fmt.Sprintf("http://127.0.0.1:%d/", port), conf: fmt.Sprintf("/etc/nginx/nginx-%d.conf", port)}
		if err := p.settle(filepath.Join(s.src, "nginx.conf"), n, port); err != nil {
			return p, err
		}
		p.nginx = append(p.nginx, n)
	}
	p.url = p.nginx[0].url
	if err := p.start(); err != nil {
		return p, err
	}
	_, err := p.awaitAnswers(ctx, nil)
	return p, err
}

// settle gives nginx what a host would: its configuration, places to write, and
// a file as its access log.
func (p *inPlace) settle(conf string, n *nginx, port int) error {
	b, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	b = regexp.MustCompile(`listen \d+;`).ReplaceAll(b, fmt.Appendf(nil, "listen 127.0.0.1:%d;", port))
	b = regexp.MustCompile(`pid \S+;`).ReplaceAll(b, fmt.Appendf(nil, "pid /run/nginx-%d.pid;", port))
	if err := os.WriteFile(filepath.Join(p.root, n.conf), b, 0o644); err != nil {
		return err
	}
	for _, d := range []string{"run", "tmp", "dev"} {
		path := filepath.Join(p.root, d)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, webUser, webUser)); err != nil {
			return err
		}
	}
	null, log := filepath.Join(p.root, "dev/null"), filepath.Join(p.root, "dev/stdout")
	for _, path := range []string{null, log} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := syscall.Mknod(null, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(log, nil, 0o644), os.Chown(log, webUser, webUser))
}

func (p *inPlace) start() error {
	for _, n := range p.nginx {
		if err := n.start(p.root); err != nil {
			return err
		}
	}
	return nil
}

func (n *nginx) start(root string) error {
	cmd := exec.Command("/usr/sbin/nginx", "-e", "stderr", "-c", n.conf)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stderr, cmd.WaitDelay = &n.log, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Credential: &syscall.Credential{Uid: webUser, Gid: webUser}, Pdeathsig: syscall.SIGTERM,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start nginx in place: %w", err)
	}
	ended := make(chan error, 1)
	n.cmd, n.ended = cmd, ended
	go func() { ended <- cmd.Wait() }()
	return nil
}

// stop ends them as the example declares it, and waits for their ends.
func (p *inPlace) stop(signal syscall.Signal) error {
	for _, n := range p.nginx {
		if n.cmd == nil {
			continue
		}
		if err := n.cmd.Process.Signal(signal); err != nil {
			return err
		}
	}
	for _, n := range p.nginx {
		if n.cmd != nil {
			<-n.ended
			n.cmd = nil
		}
	}
	return nil
}

// change is an update in place: rsync of the changed file, restart. live is when
// the last of the restarted first answered with the new line.
func (p *inPlace) change(ctx context.Context, want string) (c command, live time.Time, err error) {
	c, err = program(ctx, p.src, nil, "rsync", "-a", "index.html", filepath.Join(p.root, "srv/www")+"/")
	if err != nil {
		return c, live, err
	}
	if err := p.stop(syscall.SIGQUIT); err != nil {
		return c, live, err
	}
	if err := p.start(); err != nil {
		return c, live, err
	}
	live, err = p.awaitAnswers(ctx, []byte(want))
	c.took = time.Since(c.began)
	return c, live, err
}

// awaitAnswers asks each, with a new connection each time, until an answer contains want.
func (p *inPlace) awaitAnswers(ctx context.Context, want []byte) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, inPlaceStart)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, n := range p.nginx {
		for {
			if last, err = ask(ctx, &client, n.url, want); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return last, fmt.Errorf("nginx in place does not answer: %w\n%s", err, n.log.String())
			case <-time.After(askAgain):
			}
		}
	}
	return last, nil
}

// ask gives the moment at which a good answer began.
func ask(ctx context.Context, client *http.Client, url string, want []byte) (at time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return at, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return at, err
	}
	at = time.Now()
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(body, want)) {
		err = fmt.Errorf("status %d without %q", resp.StatusCode, want)
	}
	return at, err
}

// export writes a sealed tree as plain files, as an in-place host has them.
func export(state string, sealed digest.Digest, root string) error {
	objects, err := object.Open(state)
	if err != nil {
		return err
	}
	defer objects.Close() //nolint:errcheck // only read
	tree, err := seal.Read(objects, sealed)
	if err != nil {
		return err
	}
	for _, e := range tree.Entries {
		if err := exportEntry(objects, e, filepath.Join(root, e.Path)); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

func exportEntry(objects *object.Store, e image.Entry, path string) error {
	switch e.Type {
	case image.Dir:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	case image.Symlink:
		return os.Symlink(e.Link, path)
	case image.File:
		var b []byte
		if e.Size > 0 {
			var err error
			if b, err = objects.ReadAll(e.Digest, e.Size); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	mode := os.FileMode(e.Mode & 0o777)
	return errors.Join(os.Lchown(path, e.UID, e.GID), os.Chmod(path, mode))
}
