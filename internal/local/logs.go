package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// Query says whose output is wanted.
type Query struct {
	Env       rollout.Key
	ID        string // one instance; empty: all, removed ones included
	Component string // only instances of it that are not removed; empty: any
	Tail      int    // only the last lines there are now; 0: none of them, < 0: all
	Follow    bool   // go on with what comes, until ctx ends or the one instance asked for is over
}

// Line is one line of output, or a piece of a very long one.
type Line struct {
	ID      string
	At      time.Time
	Stream  string // stdout or stderr
	Text    string
	Partial bool // the line goes on in the instance's next Line
}

// followEvery is how often a followed output is looked at.
const followEvery = 100 * time.Millisecond

// Logs gives the lines of one or several instances in the order of their time, on
// across rotation. It is an error to ask for an instance that left no output.
func (p *Platform) Logs(ctx context.Context, q Query) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r := &logReader{p: p, q: q, tails: map[string]*tail{}}
		defer r.close()
		lines, err := r.first()
		for {
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
			if err != nil {
				yield(Line{}, err)
				return
			}
			over := r.over()
			if !q.Follow || over && r.drained {
				return
			}
			r.drained = over // once more, for what came before the end
			select {
			case <-ctx.Done():
				return
			case <-time.After(followEvery):
			}
			lines, err = r.more()
		}
	}
}

type logReader struct {
	p       *Platform
	q       Query
	tails   map[string]*tail // by instance
	drained bool             // read once more after the end
	begun   bool             // what there was at the beginning is read
}

// ids lists the instances that q asks for and that have output.
func (r *logReader) ids() ([]string, error) {
	if r.q.ID != "" {
		return []string{r.q.ID}, nil
	}
	if r.q.Component != "" {
		return r.p.ofComponent(r.q.Env, r.q.Component), nil
	}
	names, err := filepath.Glob(filepath.Join(r.p.cfg.LogDir, r.q.Env.App, r.q.Env.Env, "*.log"))
	ids := make([]string, len(names))
	for i, n := range names {
		ids[i] = strings.TrimSuffix(filepath.Base(n), ".log")
	}
	return ids, err
}

func (p *Platform) ofComponent(env rollout.Key, component string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for id, i := range p.instances {
		if i.meta.Key == env && i.meta.Instance.Component == component {
			ids = append(ids, id)
		}
	}
	return ids
}

// over says whether the one instance that was asked for writes no more.
func (r *logReader) over() bool {
	if r.q.ID == "" {
		return false
	}
	i := r.p.find(r.q.ID)
	return i == nil || i.observed().Phase == rollout.Exited
}

// first opens every output and gives its last lines.
func (r *logReader) first() ([]Line, error) {
	for _, name := range []string{r.q.Env.App, r.q.Env.Env} {
		if !plainName(name) {
			return nil, fault.New(fault.Invalid, "%q cannot name an environment", name)
		}
	}
	if r.q.ID != "" && (!plainName(r.q.ID) || !exists(r.p.logFile(r.q.Env, r.q.ID)) && r.p.find(r.q.ID) == nil) {
		return nil, fault.New(fault.NotFound, "instance %s of %s has no output", r.q.ID, r.q.Env).Mend("see  ashlar status")
	}
	lines, err := r.more()
	r.begun = true
	if r.q.Tail >= 0 && len(lines) > r.q.Tail {
		lines = lines[len(lines)-r.q.Tail:]
	}
	return lines, err
}

// more gives what has come since the last call.
func (r *logReader) more() ([]Line, error) {
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	var lines []Line
	for _, id := range ids {
		t := r.tails[id]
		if t == nil {
			t = &tail{path: r.p.logFile(r.q.Env, id), keep: -1}
			if !r.begun {
				t.keep = r.q.Tail
			}
			r.tails[id] = t
		}
		got, err := t.read()
		for _, entry := range got {
			if l, ok := parseEntry(id, entry); ok {
				lines = append(lines, l)
			}
		}
		if err != nil {
			return lines, err
		}
	}
	slices.SortStableFunc(lines, func(a, b Line) int { return a.At.Compare(b.At) })
	return lines, nil
}

func (r *logReader) close() {
	for _, t := range r.tails {
		t.close()
	}
}

// parseEntry reads a line that the shim wrote.
func parseEntry(id string, entry []byte) (Line, bool) {
	parts := bytes.SplitN(entry, []byte{' '}, 4)
	if len(parts) != 4 {
		return Line{}, false
	}
	at, err := time.Parse(shim.Timestamp, string(parts[0]))
	if err != nil {
		return Line{}, false
	}
	return Line{ID: id, At: at, Stream: string(parts[1]), Text: string(parts[3]), Partial: parts[2][0] == 'P'}, true
}

// tail reads the entries of one output, file after file.
type tail struct {
	path  string
	keep  int // entries of the first reading; < 0: all
	file  *os.File
	rest  []byte // of an entry that is not complete yet
	begun bool   // the first reading is done
}

// read gives the complete entries that it has not given yet.
func (t *tail) read() ([][]byte, error) {
	var out [][]byte
	for {
		if t.file == nil {
			next, err := t.oldest()
			if err != nil || next == nil {
				return t.limit(out), err
			}
			t.file = next
		}
		b, err := io.ReadAll(t.file)
		out = t.split(out, b)
		if !t.begun && t.keep >= 0 && len(out) > t.keep {
			out = slices.Clone(out[len(out)-t.keep:])
		}
		if err != nil {
			return out, err
		}
		next, err := t.successor()
		if err != nil || next == nil {
			return t.limit(out), err
		}
		// Rotated: what was written between the reading and the rotation comes first.
		b, err = io.ReadAll(t.file)
		out = t.split(out, b)
		if err = errors.Join(err, t.file.Close()); err != nil {
			return out, err
		}
		t.file, t.rest = next, nil
	}
}

func (t *tail) limit(out [][]byte) [][]byte {
	if !t.begun && t.keep >= 0 && len(out) > t.keep {
		out = out[len(out)-t.keep:]
	}
	t.begun = true
	return out
}

func (t *tail) split(out [][]byte, b []byte) [][]byte {
	b = append(t.rest, b...)
	for {
		line, after, ended := bytes.Cut(b, []byte{'\n'})
		if !ended {
			t.rest = bytes.Clone(b)
			return out
		}
		out = append(out, line)
		b = after
	}
}

// files are the names of the output's files, newest first. Amid a rotation one may be
// missing: an older one has moved on already, and it has not.
func (t *tail) files() []string {
	name := func(n int) string { return t.path + "." + strconv.Itoa(n) }
	out := []string{t.path}
	for n := 1; exists(name(n)) || exists(name(n+1)); n++ {
		if exists(name(n)) {
			out = append(out, name(n))
		}
	}
	return out
}

// oldest opens the first file; nil if there is none yet.
func (t *tail) oldest() (*os.File, error) {
	for {
		files := t.files()
		f, err := os.Open(files[len(files)-1])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil || slices.Equal(t.files(), files) {
			return f, err
		}
		// A rotation came in between: what was opened may have an older one before it.
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// successor opens the file after the one being read; nil if that is the newest. If
// it was rotated out of existence, the oldest that is left is next.
func (t *tail) successor() (*os.File, error) {
	own, err := t.file.Stat()
	if err != nil {
		return nil, err
	}
	for {
		files := t.files()
		n := slices.IndexFunc(files, func(name string) bool { return isFile(name, own) })
		if n < 0 {
			return t.oldest()
		}
		if n == 0 {
			return nil, nil
		}
		next, err := os.Open(files[n-1])
		if err != nil || isFile(files[n], own) && slices.Equal(t.files(), files) {
			return next, err
		}
		// A rotation came in between: what was opened may be the one after the next.
		if err := next.Close(); err != nil {
			return nil, err
		}
	}
}

func isFile(name string, f os.FileInfo) bool {
	info, err := os.Stat(name)
	return err == nil && os.SameFile(f, info)
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close() // read only
		t.file = nil
	}
}

// lastLines gives the texts of the last n entries of an output, from the end of its
// newest file.
func lastLines(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	const window = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, 2*window))
	if err != nil {
		return nil
	}
	var out []string
	for entry := range bytes.Lines(b) {
		l, ok := parseEntry("", bytes.TrimSuffix(entry, []byte{'\n'}))
		if !ok {
			continue
		}
		if len(l.Text) > 1024 {
			l.Text = l.Text[:1024] + "…"
		}
		out = append(out, strings.ToValidUTF8(l.Text, "\uFFFD"))
	}
	return out[max(0, len(out)-n):]
}

// retireLogs keeps the output of a removed instance for `ashlar logs`, and removes
// the oldest outputs of instances that are gone beyond the number that is kept.
func (p *Platform) retireLogs(m meta) error {
	if m.Key == (rollout.Key{}) {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(p.logFile(m.Key, "x")), "*.log"))
	if err != nil {
		return err
	}
	type gone struct {
		name string
		last time.Time
	}
	var outputs []gone
	for _, name := range names {
		id := strings.TrimSuffix(filepath.Base(name), ".log")
		info, err := os.Stat(name)
		if err != nil || p.find(id) != nil && id != m.Instance.ID {
			continue
		}
		outputs = append(outputs, gone{name, info.ModTime()})
	}
	slices.SortFunc(outputs, func(a, b gone) int { return b.last.Compare(a.last) })
	for _, o := range outputs[min(len(outputs), p.cfg.KeepLogs):] {
		for _, name := range (&tail{path: o.name}).files() {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
