package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// maxLine is the length at which a line without end is cut into pieces, in bytes.
const maxLine = 16 << 10

// The last lines that go with an exit status.
const (
	tailLines  = 20
	tailLength = 1 << 10 // bytes of one of them
)

// Timestamp is the layout of a log line's time; fixed width, so that lines sort as text.
const Timestamp = "2006-01-02T15:04:05.000000000Z"

// output writes a program's lines in the CRI logging format
// (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md):
//
//	2026-01-02T15:04:05.123456789Z stdout F the line
//
// where P instead of F says that the line goes on in the next entry. The file is
// rotated by size. A full disk loses lines, never the program: what could not be
// written is counted and said as soon as there is room.
type output struct {
	mu    sync.Mutex
	path  string
	limit int64
	files int
	now   func() time.Time

	file *os.File
	size int64
	lost int64 // bytes that could not be written
	tail []string
}

func openOutput(path string, limit int64, files int, now func() time.Time) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	o := &output{path: path, limit: limit, files: max(files, 1), now: now}
	return o, o.open()
}

func (o *output) open() error {
	f, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o.file, o.size = f, info.Size()
	return nil
}

// rotate moves path to path.1, path.1 to path.2 and so on, and begins anew.
func (o *output) rotate() error {
	err := o.file.Close()
	o.file = nil
	for i := o.files - 1; i > 0; i-- {
		from := o.path
		if i > 1 {
			from = o.path + "." + strconv.Itoa(i-1)
		}
		if e := os.Rename(from, o.path+"."+strconv.Itoa(i)); e != nil && !os.IsNotExist(e) {
			err = errors.Join(err, e)
		}
	}
	if o.files == 1 {
		err = errors.Join(err, os.Remove(o.path))
	}
	return errors.Join(err, o.open())
}

// write appends complete entries.
func (o *output) write(entries []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost > 0 {
		note := entry(nil, o.now(), "stderr", 'F', fmt.Appendf(nil, "[%d bytes of output were lost: the log could not be written]", o.lost))
		if o.append(note) {
			o.lost = 0
		}
	}
	if !o.append(entries) {
		o.lost += int64(len(entries))
	}
}

func (o *output) append(b []byte) bool {
	if o.file == nil && o.open() != nil {
		return false
	}
	if o.size > 0 && o.size+int64(len(b)) > o.limit {
		if o.rotate() != nil && o.file == nil {
			return false
		}
	}
	n, err := o.file.Write(b)
	o.size += int64(n)
	if err != nil && n > 0 { // no torn entry stays
		o.size -= int64(n)
		err = errors.Join(err, o.file.Truncate(o.size))
	}
	return err == nil
}

func (o *output) remember(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(line) > tailLength {
		line = append(bytes.Clone(line[:tailLength]), "…"...)
	}
	if len(o.tail) == tailLines {
		o.tail = append(o.tail[:0], o.tail[1:]...)
	}
	o.tail = append(o.tail, string(bytes.ToValidUTF8(line, []byte("\uFFFD"))))
}

func (o *output) lastLines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.tail...)
}

func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	return err
}

// copy reads one stream to its end, line by line.
func (o *output) copy(r io.Reader, stream string) {
	buf := make([]byte, 0, maxLine) // what has come and is not written
	var entries []byte
	cut := false // the line's beginning was written already
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		entries = entries[:0]
		at := o.now()
		rest := buf
		for {
			line, after, ended := bytes.Cut(rest, []byte{'\n'})
			if !ended {
				break
			}
			entries, cut = o.line(entries, at, stream, line, cut), false
			rest = after
		}
		if len(rest) == cap(buf) {
			if !cut {
				o.remember(rest)
			}
			entries, cut, rest = entry(entries, at, stream, 'P', rest), true, nil
		}
		if err != nil && len(rest) > 0 {
			entries = o.line(entries, at, stream, rest, cut)
		}
		if len(entries) > 0 {
			o.write(entries)
		}
		if err != nil {
			return
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
	}
}

func (o *output) line(entries []byte, at time.Time, stream string, line []byte, cut bool) []byte {
	if !cut {
		o.remember(line)
	}
	return entry(entries, at, stream, 'F', line)
}

func entry(b []byte, at time.Time, stream string, tag byte, line []byte) []byte {
	b = at.UTC().AppendFormat(b, Timestamp)
	b = append(b, ' ')
	b = append(b, stream...)
	b = append(b, ' ', tag, ' ')
	b = append(b, line...)
	return append(b, '\n')
}
