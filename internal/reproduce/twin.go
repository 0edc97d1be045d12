package reproduce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// twin is one of the builds.
type twin struct {
	q    Request
	c    circumstance
	work string
	home string // copy of the definition's directory
	made map[string]Made
	not  []string
}

func (t *twin) state() string { return filepath.Join(t.work, "state") }

// prepare copies what the build needs: the definition's directory, with as many of its
// parents' names as files outside of it are reached by, those files, and the packages.
func (t *twin) prepare() error {
	dir, err := filepath.Abs(filepath.Dir(t.q.File))
	if err != nil {
		return err
	}
	root, above := dir, ""
	for _, name := range t.q.Outside {
		for up := strings.Count(filepath.ToSlash(name), "../"); up > strings.Count(above, "/"); {
			above = filepath.Base(root) + "/" + above
			root = filepath.Dir(root)
		}
	}
	source := filepath.Join(t.work, "source")
	t.home = filepath.Join(source, filepath.FromSlash(above))
	for _, name := range append([]string{"."}, t.q.Outside...) {
		if err := t.copyAll(filepath.Join(dir, name), filepath.Join(t.home, name)); err != nil {
			return err
		}
	}
	return t.inputs()
}

// copyAll copies a file, or everything below a directory.
func (t *twin) copyAll(from, to string) error {
	names, err := t.list(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.copy(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// list gives everything below a directory that is no directory, but what is Git's and
// the program's own; of a file, itself.
func (t *twin) list(dir string) ([]string, error) {
	var names []string
	own, err := filepath.Abs(t.q.State)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || path == own):
			return filepath.SkipDir
		case e.IsDir() || !e.Type().IsRegular() && e.Type() != fs.ModeSymlink:
			return nil
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	})
	slices.Sort(names)
	if t.c.reversed {
		slices.Reverse(names)
	}
	return names, err
}

func (t *twin) copy(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	mode := fs.FileMode(0o666) | info.Mode()&0o100
	if mode&0o100 != 0 {
		mode = 0o777
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read from
	mode &^= fs.FileMode(t.c.umask)
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	when := time.Unix(t.c.time, 0)
	return errors.Join(err, out.Close(), os.Chmod(to, mode), os.Chtimes(to, when, when))
}

// inputs brings packages into the empty store, so that the network is not needed.
func (t *twin) inputs() (err error) {
	store, err := object.Open(t.state())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	batch := store.NewBatch()
	defer batch.Discard()
	for _, d := range t.q.Inputs {
		r, err := t.q.Objects.Open(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the build says so, or fetches it
		}
		if err != nil {
			return err
		}
		_, err = batch.PutVerified(r, d, -1)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return batch.Commit()
}

// build runs the program in the twin's circumstances.
func (t *twin) build(ctx context.Context) error {
	var stdout, stderr bytes.Buffer
	command := func(attr syscall.SysProcAttr) *exec.Cmd {
		stdout.Reset()
		stderr.Reset()
		cmd := exec.CommandContext(ctx, t.q.Program, "build", "--anew", "--locked", "--untested", "--output", "json", "--dir", t.state(), "--file", filepath.Base(t.q.File))
		cmd.Args[0] = t.q.Args0
		cmd.Dir, cmd.Env = t.home, append(t.c.environ(filepath.Join(t.work, "go-cache")), "PWD="+t.home)
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.WaitDelay = &stdout, &stderr, &attr, 5*time.Second
		attr.Setpgid, attr.Pdeathsig = true, syscall.SIGKILL
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // compilers too
		return cmd
	}
	as := t.c.asUser()
	if t.q.OneUser != "" {
		as = syscall.SysProcAttr{}
	}
	not, err := t.c.inside(command(as).Run)
	if t.q.OneUser != "" {
		not = append(not, user+": "+t.q.OneUser)
	} else if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		why := user + ": " + err.Error()
		not, err = t.c.inside(command(syscall.SysProcAttr{}).Run)
		not = append(not, why)
	}
	if t.not = not; err != nil {
		return t.failed(ctx, err, stderr.Bytes())
	}
	return t.read(stdout.Bytes())
}

// failed tells why a build did not end well that did here.
func (t *twin) failed(ctx context.Context, err error, stderr []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := fault.New(fault.Refused, "built again, under other circumstances (%s), it fails: %w", t.c, err).
		Mend("find out what it needs of its surroundings")
	var said struct {
		Faults []fault.Error `json:"faults"`
	}
	if json.Unmarshal(stderr, &said) != nil || len(said.Faults) == 0 {
		return f.Detail(strings.TrimSpace(string(stderr)))
	}
	for _, x := range said.Faults {
		f = f.Detail(append([]string{x.What}, x.Details...)...)
	}
	return f
}

func (t *twin) read(stdout []byte) error {
	var out struct {
		Components []struct {
			Name string `json:"name"`
			Made
		} `json:"components"`
	}
	if err := json.Unmarshal(stdout, &out); err != nil {
		return fmt.Errorf("reading what the build says: %w", err)
	}
	t.made = map[string]Made{}
	for _, c := range out.Components {
		t.made[c.Name] = c.Made
	}
	return nil
}
