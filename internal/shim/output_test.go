package shim

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

const stamp = "2026-01-02T12:00:00.000000000Z "

func written(t *testing.T, limit int64, files int, r io.Reader) (*output, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app", "x.log")
	o, err := openOutput(path, limit, files, noon)
	if err != nil {
		t.Fatal(err)
	}
	o.copy(r, "stdout")
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return o, string(b)
}

func TestLinesAreWhole(t *testing.T) {
	in := "one\n\ntwo\r\n" + strings.Repeat("x", maxLine) + "yy\nno end"
	want := stamp + "stdout F one\n" + stamp + "stdout F \n" + stamp + "stdout F two\r\n" +
		stamp + "stdout P " + strings.Repeat("x", maxLine) + "\n" + stamp + "stdout F yy\n" + stamp + "stdout F no end\n"
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in)), "halved": iotest.HalfReader(strings.NewReader(in)),
	} {
		o, got := written(t, 1<<20, 3, r)
		// A long line is cut where the buffer is full, which depends on what comes with it.
		if diff := cmp.Diff(whole(want), whole(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		tail := o.lastLines()
		if len(tail) != 5 || tail[0] != "one" || tail[4] != "no end" || len(tail[3]) > tailLength+len("…") {
			t.Errorf("%s: last lines %.80q", name, tail)
		}
	}
}

// whole joins the pieces of cut lines, as a reader does.
func whole(log string) []string {
	var out []string
	open := false
	for line := range strings.Lines(log) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if open {
			out[len(out)-1] += parts[3]
		} else {
			out = append(out, parts[3])
		}
		open = parts[2] == "P"
	}
	return out
}

func TestRotation(t *testing.T) {
	var in bytes.Buffer
	for range 100 {
		in.WriteString(strings.Repeat("x", 99) + "\n")
	}
	o, _ := written(t, 4000, 3, iotest.OneByteReader(&in))
	names, err := filepath.Glob(o.path + "*")
	if err != nil || len(names) != 3 {
		t.Fatalf("files %v, %v", names, err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil || len(b) > 4000 || !bytes.HasPrefix(b, []byte("2026")) || !bytes.HasSuffix(b, []byte("\n")) {
			t.Errorf("%s: %d bytes, %v", n, len(b), err)
		}
	}
}

func TestFullDiskLosesLinesAndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	o, err := openOutput(path, 1<<20, 3, noon)
	if err != nil {
		t.Fatal(err)
	}
	good := o.file
	if o.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	o.copy(strings.NewReader("lost\n"), "stdout")
	if err := o.file.Close(); err != nil {
		t.Fatal(err)
	}
	o.file = good
	o.copy(strings.NewReader("kept\n"), "stdout")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := stamp + "stderr F [45 bytes of output were lost: the log could not be written]\n" + stamp + "stdout F kept\n"
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"lost", "kept"}, o.lastLines()); diff != "" {
		t.Error(diff)
	}
}

// FuzzOutput: whatever comes in, in whatever pieces, comes out.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine), uint16(maxLine))
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		_, got := written(t, 1<<30, 1, &pieces{in, int(piece) + 1})
		want := strings.Split(strings.TrimSuffix(string(in), "\n"), "\n")
		if len(in) == 0 {
			want = nil
		}
		if diff := cmp.Diff(want, whole(got)); diff != "" {
			t.Error(diff)
		}
	})
}

type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
