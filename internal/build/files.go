package build

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// filesSource collects what a files source copies: one entry per file or
// symbolic link, without directories. Modification times are all zero, so that the
// time of a checkout cannot change an artifact; modes depend on nothing but the
// source's executable bit, so that a umask cannot either. A .git directory is
// never copied. The bytes of files are objects once the batch is committed.
func filesSource(ctx context.Context, objects *object.Store, batch *object.Batch, c *content, src *definition.FilesSource) ([]image.Entry, explainer, error) {
	m := &matcher{content: c, src: src, dest: map[string]int{}}
	for _, pattern := range append(slices.Clone(src.From), src.Exclude...) {
		if err := checkGlob(pattern); err != nil {
			return nil, nil, err
		}
	}
	for _, pattern := range src.Exclude {
		m.exclude = append(m.exclude, path.Clean(pattern))
	}
	for _, pattern := range src.From {
		before := m.matched
		if err := m.glob(ctx, path.Clean(pattern)); err != nil {
			return nil, nil, err
		}
		if m.matched == before {
			return nil, nil, m.nothing(pattern)
		}
	}
	if err := m.store(ctx, objects, batch); err != nil {
		return nil, nil, err
	}
	return m.entries, m.explain, nil
}

// explain says of which file an entry was made. It has the file's bytes; its mode is
// 0644 or 0755, its time the epoch and its owner root unless the definition says
// otherwise.
func (m *matcher) explain(w *ledger.Writer) func(int) (ledger.Line, error) {
	origin := w.Origin(ledger.Origin{Kind: ledger.KindFile, Name: "."})
	return func(i int) (ledger.Line, error) { return ledger.Line{Origin: origin, Member: m.found[i].name}, nil }
}

// store gives every file its digest. What the cache does not know, or the store
// has lost, is read, several at a time.
func (m *matcher) store(ctx context.Context, objects *object.Store, batch *object.Batch) error {
	var known []digest.Digest
	for i := range m.entries {
		e := &m.entries[i]
		if e.Type != image.File {
			continue
		}
		if d, ok := m.content.known(m.found[i].name, m.found[i].stat); ok {
			e.Digest, e.Size = d, m.found[i].stat.size
			known = append(known, d)
		}
	}
	lost := map[digest.Digest]bool{}
	for _, d := range objects.Missing(known) {
		lost[d] = true
	}
	var read []int
	for i, e := range m.entries {
		if e.Type == image.File && (e.Digest == "" || lost[e.Digest]) {
			read = append(read, i)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(read, 64) {
		g.Go(func() error {
			for _, i := range part {
				if err := ctx.Err(); err != nil {
					return err
				}
				d, size, err := m.content.put(m.found[i].name, m.found[i].stat, batch)
				if err != nil {
					return err
				}
				m.entries[i].Digest, m.entries[i].Size = d, size
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
	exclude []string // globs, clean
	entries []image.Entry
	found   []found        // what the entries are made of
	dest    map[string]int // in entries, by destination
	matched int            // files so far, also those met before
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
		if m.excluded(pattern) {
			return nil
		}
		return m.add(start, found{pattern, info.Mode(), stat(info)})
	}
	w := &walker{content: m.content, excluded: m.excluded, spare: make(chan struct{}, runtime.GOMAXPROCS(0))}
	files, err := w.walk(ctx, start)
	if err != nil {
		return err
	}
	m.entries = slices.Grow(m.entries, len(files))
	m.found = slices.Grow(m.found, len(files))
	if len(m.dest) == 0 {
		m.dest = make(map[string]int, len(files))
	}
	for _, f := range files {
		if ok, err := doublestar.Match(pattern, f.name); err != nil {
			return err
		} else if !ok {
			continue
		}
		if err := m.add(start, f); err != nil {
			return err
		}
	}
	return nil
}

func hasMeta(pattern string) bool { return strings.ContainsAny(pattern, `*?[{\`) }

func (m *matcher) excluded(name string) bool {
	return slices.ContainsFunc(m.exclude, func(pattern string) bool {
		ok, _ := doublestar.Match(pattern, name) // the pattern is known to be valid
		return ok
	})
}

// add makes the entry of one matched file. start is the glob-free directory of the pattern.
func (m *matcher) add(start string, f found) error {
	to, err := m.destination(f.name, start)
	if err != nil {
		return err
	}
	m.matched++
	if i, ok := m.dest[to]; ok {
		if m.found[i].name == f.name {
			return nil // by another glob
		}
		return fault.New(fault.Invalid, "%s and %s both go to /%s", m.found[i].name, f.name, to).
			Mend("exclude one of them, or set base")
	}
	e := image.Entry{Path: to, UID: m.src.UID, GID: m.src.GID}
	switch {
	case f.mode.IsRegular():
		e.Type, e.Mode = image.File, 0o644
		if f.mode&0o100 != 0 {
			e.Mode = 0o755
		}
		if m.src.Mode != nil {
			e.Mode = *m.src.Mode
		}
	case f.mode&fs.ModeSymlink != 0:
		if e.Link, err = m.link(f.name); err != nil {
			return err
		}
		e.Type, e.Mode = image.Symlink, 0o777
	default:
		return fault.New(fault.Invalid, "%s is neither a file nor a symbolic link (%s)", f.name, f.mode.Type()).
			Mend("exclude it")
	}
	m.dest[to] = len(m.entries)
	m.entries, m.found = append(m.entries, e), append(m.found, f)
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
	if to == "" {
		return rest, nil
	}
	return to + "/" + rest, nil
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
