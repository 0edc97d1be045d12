package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// filesSource collects what a files source copies: one entry per file or
// symbolic link, without directories. Modification times are all zero, so that the
// time of a checkout cannot change an artifact; modes depend on nothing but the
// source's executable bit, so that a umask cannot either. A .git directory is
// never copied.
func filesSource(ctx context.Context, objects *object.Store, c *content, src *definition.FilesSource) ([]image.Entry, error) {
	m := &matcher{content: c, src: src, dest: map[string]matched{}}
	for _, pattern := range append(slices.Clone(src.From), src.Exclude...) {
		if err := checkGlob(pattern); err != nil {
			return nil, err
		}
	}
	for _, pattern := range src.From {
		before := m.matched
		if err := m.glob(ctx, path.Clean(pattern)); err != nil {
			return nil, err
		}
		if m.matched == before {
			return nil, m.nothing(pattern)
		}
	}
	batch := objects.NewBatch()
	defer batch.Discard()
	if err := m.store(ctx, objects, batch); err != nil {
		return nil, err
	}
	if err := batch.Commit(); err != nil {
		return nil, err
	}
	return m.entries, nil
}

// store reads what is new and gives every file its digest, several at a time.
func (m *matcher) store(ctx context.Context, objects *object.Store, batch *object.Batch) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(m.entries, 64) {
		g.Go(func() error {
			for i := range part {
				e := &part[i]
				if e.Type != image.File {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				from := m.dest[e.Path]
				var err error
				if e.Digest, e.Size, err = m.content.put(from.name, from.info, objects, batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func checkGlob(pattern string) error {
	clean := path.Clean(pattern)
	switch {
	case !doublestar.ValidatePattern(pattern):
		return fault.New(fault.Invalid, "%q is not a valid glob", pattern).
			Mend("close every [ and {; write \\[ for the character itself")
	case path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../"):
		return fault.New(fault.Invalid, "%q leads out of the definition's directory", pattern).
			Mend("move the files below the directory of ashlar.yaml")
	}
	return nil
}

// matcher walks the directory for one source.
type matcher struct {
	content *content
	src     *definition.FilesSource
	entries []image.Entry
	dest    map[string]matched // by destination
	matched int                // files so far, also those met before
}

// matched is a file of the source.
type matched struct {
	name string
	info fs.FileInfo
}

// glob adds every file that the pattern matches.
func (m *matcher) glob(ctx context.Context, pattern string) error {
	start, _ := doublestar.SplitPattern(pattern)
	if !hasMeta(pattern) {
		start = path.Dir(pattern)
		info, err := m.content.root.Lstat(pattern)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return escapes(pattern, err)
		case info.IsDir():
			return fault.New(fault.Invalid, "%s is a directory", pattern).Mend("write  %s/**  to copy what is in it", pattern)
		}
		return m.add(pattern, start, info)
	}
	return m.walk(ctx, start, func(name string, info fs.FileInfo) error {
		if ok, err := doublestar.Match(pattern, name); err != nil || !ok {
			return err
		}
		return m.add(name, start, info)
	})
}

func hasMeta(pattern string) bool { return strings.ContainsAny(pattern, `*?[{\`) }

// walk calls fn for every entry below dir that is neither a directory nor excluded.
func (m *matcher) walk(ctx context.Context, dir string, fn func(name string, info fs.FileInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := m.content.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return escapes(dir, err)
	}
	list, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return fmt.Errorf("reading the directory %s: %w", dir, err)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, d := range list {
		name := path.Join(dir, d.Name())
		if d.IsDir() && d.Name() == ".git" || m.excluded(name) {
			continue
		}
		if d.IsDir() {
			if err := m.walk(ctx, name, fn); err != nil {
				return err
			}
			continue
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := fn(name, info); err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) excluded(name string) bool {
	return slices.ContainsFunc(m.src.Exclude, func(pattern string) bool {
		ok, _ := doublestar.Match(path.Clean(pattern), name) // the pattern is known to be valid
		return ok
	})
}

// add makes the entry of one matched file. start is the glob-free directory of the pattern.
func (m *matcher) add(name, start string, info fs.FileInfo) error {
	if m.excluded(name) {
		return nil
	}
	to, err := m.destination(name, start)
	if err != nil {
		return err
	}
	m.matched++
	if other, ok := m.dest[to]; ok {
		if other.name == name {
			return nil // by another glob
		}
		return fault.New(fault.Invalid, "%s and %s both go to /%s", other.name, name, to).
			Mend("exclude one of them, or set base")
	}
	e := image.Entry{Path: to, UID: m.src.UID, GID: m.src.GID}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		e.Type, e.Mode = image.File, 0o644
		if mode&0o100 != 0 {
			e.Mode = 0o755
		}
		if m.src.Mode != nil {
			e.Mode = *m.src.Mode
		}
	case mode&fs.ModeSymlink != 0:
		if e.Link, err = m.link(name); err != nil {
			return err
		}
		e.Type, e.Mode = image.Symlink, 0o777
	default:
		return fault.New(fault.Invalid, "%s is neither a file nor a symbolic link (%s)", name, mode.Type()).
			Mend("exclude it")
	}
	m.dest[to] = matched{name, info}
	m.entries = append(m.entries, e)
	return nil
}

// destination is where the file goes, relative to the artifact's root.
func (m *matcher) destination(name, start string) (string, error) {
	to := strings.TrimPrefix(path.Clean(m.src.To), "/")
	if len(m.src.From) == 1 && !hasMeta(m.src.From[0]) && !strings.HasSuffix(m.src.To, "/") {
		return to, nil
	}
	base := start
	if m.src.Base != "" {
		base = path.Clean(m.src.Base)
	}
	rest := name
	if base != "." {
		var ok bool
		if rest, ok = strings.CutPrefix(name, base+"/"); !ok {
			return "", fault.New(fault.Invalid, "%s is not below the base %s", name, base).
				Mend("set base to a directory that all of the globs begin with")
		}
	}
	return path.Join(to, rest), nil
}

// link checks a symbolic link: it is copied as it is, if what it points at is
// within the definition's directory.
func (m *matcher) link(name string) (string, error) {
	target, err := m.content.root.Readlink(name)
	if err != nil {
		return "", err
	}
	where := path.Join(path.Dir(name), target)
	if path.IsAbs(target) || where == ".." || strings.HasPrefix(where, "../") {
		return "", fault.New(fault.Refused, "the symbolic link %s points out of the definition's directory, to %s", name, target).
			Mend("copy the file itself, or exclude the link")
	}
	if _, err := m.content.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", escapes(name, err)
	}
	return target, nil
}

func (m *matcher) nothing(pattern string) error {
	e := fault.New(fault.NotFound, "no file matches %q", pattern)
	dir, _ := doublestar.SplitPattern(path.Clean(pattern))
	if f, err := m.content.root.Open(dir); err == nil {
		names, _ := f.Readdirnames(12)
		f.Close()
		slices.Sort(names)
		if len(names) > 0 {
			e.Detail("in " + path.Join(m.content.dir, dir) + ": " + strings.Join(names, ", "))
		}
	} else {
		e.Detail("there is no directory " + path.Join(m.content.dir, dir))
	}
	return e.Mend("correct the pattern; it is relative to the directory of ashlar.yaml")
}

// escapes explains why a path cannot be followed.
func escapes(name string, err error) error {
	return fault.New(fault.Refused, "%s cannot be followed within the definition's directory: %w", name, err).
		Mend("symbolic links may not lead out of the directory of ashlar.yaml")
}
