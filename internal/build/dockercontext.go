package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// dockerContext is all that a Dockerfile's build sees of this machine: the settings, and
// the files of the context but ashlar.lock, what is in .git and the state directory. Of a
// file it sees name, bytes and whether it may be executed; neither its owner, nor its
// time, nor whatever the umask was when it was checked out.
type dockerContext struct {
	src     *definition.DockerSource
	arch    string
	content *content
	cache   *statCache
	files   []found
}

func (b *Builder) dockerContext(ctx context.Context, component string, src *definition.DockerSource) (*dockerContext, error) {
	dir, err := filepath.Abs(b.Definition)
	if err != nil {
		return nil, err
	}
	state, err := filepath.Abs(b.Dir)
	if err != nil {
		return nil, err
	}
	if state, err = filepath.Rel(dir, state); err != nil {
		return nil, err
	}
	cache := openStatCache(b.cachePath("dockerfile", dir, component), b.now)
	content, err := openContent(dir, cache)
	if err != nil {
		return nil, err
	}
	c := &dockerContext{src: src, arch: b.arch(), content: content, cache: cache}
	w := &walker{content: content, spare: make(chan struct{}, runtime.GOMAXPROCS(0)), excluded: func(name string) bool { return name == LockName || name == state }}
	if c.files, err = w.walk(ctx, src.Context); err != nil {
		c.close()
		return nil, err
	}
	if !slices.ContainsFunc(c.files, func(f found) bool { return f.name == path.Join(src.Context, src.File) }) {
		c.close()
		return nil, fault.New(fault.NotFound, "there is no file %s", path.Join(src.Context, src.File)).Mend("correct  file:  and  context:")
	}
	return c, nil
}

func (c *dockerContext) close() { c.content.Close() }

// digest is a digest of all of it.
func (c *dockerContext) digest() (digest.Digest, error) {
	h := sha256.New()
	fmt.Fprintf(h, "dockerfile 1\n%q %q %s\n", c.src.File, c.src.Target, c.arch)
	for _, name := range slices.Sorted(maps.Keys(c.src.Args)) {
		fmt.Fprintf(h, "arg %q %q\n", name, c.src.Args[name])
	}
	for _, f := range c.files {
		if err := hashInput(h, c.content, f); err != nil {
			return "", err
		}
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), c.cache.save()
}

func hashInput(h io.Writer, c *content, f found) error {
	switch {
	case f.mode.IsRegular():
		d, err := fileDigest(filepath.Join(c.dir, f.name), c.cache)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "file %q %v %s\n", f.name, f.mode&0o100 != 0, d)
	case f.mode&fs.ModeSymlink != 0:
		target, err := c.root.Readlink(f.name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "link %q %q\n", f.name, target)
	}
	return nil
}

// copy writes the files to a directory, whose build they are for: with modes 0755 and
// 0644, and times of the epoch.
func (c *dockerContext) copy(to string) error {
	dirs := map[string]bool{to: true}
	for _, f := range c.files {
		name, err := filepath.Rel(c.src.Context, f.name)
		if err != nil {
			return err
		}
		name = filepath.Join(to, name)
		for dir := filepath.Dir(name); !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
		if err := c.copyFile(f, name); err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755), os.Chtimes(dir, time.Unix(0, 0), time.Unix(0, 0))); err != nil {
			return err
		}
	}
	return nil
}

func (c *dockerContext) copyFile(f found, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if f.mode&fs.ModeSymlink != 0 {
		target, err := c.content.root.Readlink(f.name)
		if err != nil {
			return err
		}
		return os.Symlink(target, name)
	}
	if !f.mode.IsRegular() {
		return nil
	}
	in, err := c.content.root.Open(f.name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := digest.SHA256.Digester()
	_, err = io.Copy(io.MultiWriter(out, sum.Hash()), in)
	if want, failed := fileDigest(filepath.Join(c.content.dir, f.name), c.cache); failed != nil || want != sum.Digest() {
		err = errors.Join(err, failed, fault.New(fault.Conflict, "%s was changed while it was read", f.name).Mend("build again"))
	}
	mode := fs.FileMode(0o644)
	if f.mode&0o100 != 0 {
		mode = 0o755
	}
	return errors.Join(err, out.Chmod(mode), out.Close(), os.Chtimes(name, time.Unix(0, 0), time.Unix(0, 0)))
}
