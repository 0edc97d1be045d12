package ledger_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// objects is a store in memory.
type objects map[digest.Digest][]byte

func (o objects) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	b, ok := o[d]
	if !ok {
		return nil, fmt.Errorf("object %s: %w", d, fs.ErrNotExist)
	}
	if int64(len(b)) > limit || digest.FromBytes(b) != d {
		return nil, fmt.Errorf("object %s is damaged", d)
	}
	return b, nil
}

func (o objects) put(t testing.TB, b []byte, err error) digest.Digest {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(b)
	o[d] = b
	return d
}

func dir(path string) image.Entry { return image.Entry{Path: path, Type: image.Dir, Mode: 0o755} }

func file(path, text string) image.Entry {
	return image.Entry{Path: path, Type: image.File, Mode: 0o644, Size: int64(len(text)), Digest: digest.FromString(text)}
}

var (
	nginx = ledger.Origin{
		Kind: ledger.KindDebian, Name: "nginx-light", Version: "1.22.1-9", Arch: "amd64", Digest: digest.FromString("deb"), Size: 3,
		Place: "http://archive.test/debian/pool/n.deb", Distribution: "bookworm", Source: "nginx", SourceVersion: "1.22.1-9",
	}
	index = ledger.Origin{
		Kind: ledger.KindArchive, Name: "bookworm", Version: "12.15", Digest: digest.FromString("InRelease"), Place: "http://archive.test/debian",
		Distribution: "bookworm", Date: "2026-03-01T12:00:00Z", Signer: "ABCD",
	}
	owner   = ledger.Origin{Kind: ledger.KindRule, Name: "nginx/1", Text: "log files belong to adm"}
	program = ledger.Origin{
		Kind: ledger.KindGo, Name: "example.com/hello/cmd/hello", Version: "go1.26.8", Arch: "amd64",
		Go: &ledger.Program{
			Module: "example.com/hello", Flags: []string{"-trimpath"},
			Files:   []ledger.File{{Path: "cmd/hello/main.go", Digest: digest.FromString("package main")}},
			Modules: []ledger.Module{{Path: "example.com/dep", Version: "v1.2.3", Sum: "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}},
		},
	}
	files = ledger.Origin{Kind: ledger.KindFile, Name: "."}
)

// sample is an artifact of three layers: packages, a program, files over both.
func sample(t testing.TB) (objects, digest.Digest) {
	t.Helper()
	o := objects{}
	var layers []ledger.Layer
	layer := func(w *ledger.Writer, entries ...image.Entry) {
		t.Helper()
		c, err := w.Chapter().Canonical()
		chapter := o.put(t, c, err)
		layers = append(layers, ledger.Layer{Chapter: chapter, Tree: o.put(t, image.Tree{Entries: entries}.Marshal(), nil)})
	}
	w := ledger.NewWriter("debian nginx-light (bookworm)")
	pkg, parents := w.Origin(nginx), w.Origin(ledger.Parents)
	w.Origin(index)
	w.Line(ledger.Line{Path: "usr/sbin/nginx", Origin: pkg, Member: "usr/sbin/nginx"})
	w.Line(ledger.Line{Path: "usr", Origin: pkg})
	w.Line(ledger.Line{Path: "usr/sbin", Origin: pkg, Member: "sbin", Amended: []int{w.Origin(owner)}})
	w.Line(ledger.Line{Path: ".", Origin: parents})
	layer(w, dir("."), dir("usr"), dir("usr/sbin"), file("usr/sbin/nginx", "nginx"))
	w = ledger.NewWriter("go ./cmd/hello (go1.26.8)")
	for _, p := range []string{".", "usr"} {
		w.Line(ledger.Line{Path: p, Origin: w.Origin(ledger.Below)})
	}
	w.Line(ledger.Line{Path: "usr/bin", Origin: w.Origin(ledger.Parents)})
	w.Line(ledger.Line{Path: "usr/bin/hello", Origin: w.Origin(program)})
	layer(w, dir("."), dir("usr"), dir("usr/bin"), file("usr/bin/hello", "hello"))
	w = ledger.NewWriter("files to /usr/sbin/")
	for _, p := range []string{".", "usr", "usr/sbin"} {
		w.Line(ledger.Line{Path: p, Origin: w.Origin(ledger.Below)})
	}
	w.Line(ledger.Line{Path: "usr/sbin/nginx", Origin: w.Origin(files), Member: "conf/\"nginx\"\n"})
	layer(w, dir("."), dir("usr"), dir("usr/sbin"), file("usr/sbin/nginx", "wrapper"))
	l, err := ledger.Ledger{
		Schema: ledger.Schema, Component: "web", Arch: "amd64", Artifact: digest.FromString("a"), Seal: digest.FromString("s"), Layers: layers,
	}.Canonical()
	return o, o.put(t, l, err)
}

func book(t testing.TB) *ledger.Book {
	t.Helper()
	o, d := sample(t)
	b, err := ledger.Read(o, d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBook shows who explains what stands in several layers.
func TestBook(t *testing.T) {
	b := book(t)
	var got []string
	for _, e := range b.Entries {
		line := fmt.Sprintf("%s: layer %d %s %s %q", e.Path, e.Layer, b.Origin(e).Kind, b.Origin(e).Name, b.Member(e))
		for _, r := range b.Amended(e) {
			line += " amended by " + r.Name
		}
		got = append(got, line)
	}
	want := []string{
		`.: layer 0 rule parents/1 ""`,
		`usr: layer 0 debian nginx-light "usr"`,
		`usr/bin: layer 1 rule parents/1 ""`,
		`usr/bin/hello: layer 1 go example.com/hello/cmd/hello ""`,
		`usr/sbin: layer 0 debian nginx-light "sbin" amended by nginx/1`,
		`usr/sbin/nginx: layer 2 file . "conf/\"nginx\"\n"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if found := ledger.Check(b, b.Tree()); len(found) > 0 {
		t.Errorf("the tree of the book is not what the book says: %v", found)
	}
}

// TestPlanted changes the tree behind the ledger's back, in each attribute.
func TestPlanted(t *testing.T) {
	b := book(t)
	for _, c := range []struct {
		name   string
		change func(e []image.Entry) []image.Entry
		want   ledger.Verdict
		path   string
	}{
		{"another file", func(e []image.Entry) []image.Entry { return append(e, file("usr/sbin/planted", "x")) }, ledger.Unexplained, "usr/sbin/planted"},
		{"no file", func(e []image.Entry) []image.Entry { return e[:len(e)-1] }, ledger.Missing, "usr/sbin/nginx"},
		{"bytes", func(e []image.Entry) []image.Entry { e[5] = file("usr/sbin/nginx", "planted"); return e }, ledger.Different, "usr/sbin/nginx"},
		{"mode", func(e []image.Entry) []image.Entry { e[5].Mode = 0o4755; return e }, ledger.Different, "usr/sbin/nginx"},
		{"owner", func(e []image.Entry) []image.Entry { e[4].GID = 7; return e }, ledger.Different, "usr/sbin"},
		{"time", func(e []image.Entry) []image.Entry { e[3].MTime = 7; return e }, ledger.Different, "usr/bin/hello"},
		{"attribute", func(e []image.Entry) []image.Entry {
			e[3].Xattrs = map[string]string{"security.capability": "x"}
			return e
		}, ledger.Different, "usr/bin/hello"},
		{"link", func(e []image.Entry) []image.Entry {
			e[3] = image.Entry{Path: e[3].Path, Type: image.Symlink, Mode: 0o777, Link: "x"}
			return e
		}, ledger.Different, "usr/bin/hello"},
	} {
		found := ledger.Check(b, image.Tree{Entries: c.change(b.Tree().Entries)})
		if len(found) != 1 || found[0].Verdict != c.want || found[0].Path != c.path {
			t.Errorf("%s: %+v, want %s of %s", c.name, found, c.want, c.path)
		}
		t.Attr("refused", fmt.Sprintf("%s <- in the tree, not in the ledger: %s", c.want, c.name))
	}
}

// TestChapterIsOfItsTree reads ledgers whose chapters explain other trees.
func TestChapterIsOfItsTree(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []image.Entry
		want    string
	}{
		{"an entry more", []image.Entry{dir("."), dir("usr"), dir("usr/bin"), file("usr/bin/hello", "hello"), file("usr/bin/x", "")}, "unexplained: /usr/bin/x"},
		{"an entry less", []image.Entry{dir("."), dir("usr"), dir("usr/bin")}, "missing: /usr/bin/hello"},
		{"not as below", []image.Entry{{Path: ".", Type: image.Dir, Mode: 0o700}, dir("usr"), dir("usr/bin"), file("usr/bin/hello", "hello")}, "/."},
	} {
		o, d := sample(t)
		l, err := ledger.Parse(o[d])
		if err != nil {
			t.Fatal(err)
		}
		l.Layers[1].Tree = o.put(t, image.Tree{Entries: c.entries}.Marshal(), nil)
		raw, err := l.Canonical()
		_, err = ledger.Read(o, o.put(t, raw, err))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		t.Attr("refused", "ledger <- a chapter that explains "+c.name)
	}
}

// TestCanonical holds the writing by hand against a library for RFC 8785.
func TestCanonical(t *testing.T) {
	o, d := sample(t)
	for name, b := range o {
		if b[0] != '{' {
			continue
		}
		again, err := jcs.Transform(b)
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("%s is not canonical (%v):\n%s\n%s", name, err, b, again)
		}
	}
	var every strings.Builder
	for r := range rune(0x3000) {
		if r < 0x200 || r > 0x2000 && r < 0x2100 { // also U+2028, which encoding/json escapes
			every.WriteRune(r)
		}
	}
	w := ledger.NewWriter("x")
	w.Line(ledger.Line{Path: "x", Origin: w.Origin(files), Member: every.String()})
	b, err := w.Chapter().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := jcs.Transform(b); err != nil || !bytes.Equal(b, again) {
		t.Errorf("strings are not canonical (%v)", err)
	}
	if _, err := ledger.Parse(o[d]); err != nil {
		t.Error(err)
	}
}

// TestDamaged flips every byte of a ledger and of its chapters: what is still read
// must be another document than before, of the canonical form.
func TestDamaged(t *testing.T) {
	o, d := sample(t)
	l, err := ledger.Parse(o[d])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []digest.Digest{d, l.Layers[0].Chapter, l.Layers[1].Chapter, l.Layers[2].Chapter} {
		good := o[name]
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			o[name] = bad
			if _, err := ledger.Read(o, d); err == nil {
				t.Fatalf("byte %d of %s was flipped and nobody noticed", i, name)
			}
			checkForms(t, bad)
		}
		o[name] = good
		t.Attr("refused", fmt.Sprintf("digest <- one bit of each of the %d bytes of a ledger or chapter", len(good)))
	}
}

func TestRefusals(t *testing.T) {
	origin := `"origins":[{"kind":"rule","name":"a/1","text":"x"},{"kind":"file","name":"."},{"digest":"` + digest.FromString("").String() + `","kind":"archive","name":"s"}],"schema":"` + ledger.ChapterSchema + `","source":"s"}`
	chapter := func(lines string) string { return `{"lines":[` + lines + `],` + origin }
	for _, c := range []struct{ text, want string }{
		{chapter(``), ""},
		{chapter(`{"origin":1,"path":"a"}`), ""},
		{chapter(`{"amended":[0],"origin":1,"path":"a"}`), ""},
		{chapter(`{"origin":3,"path":"a"}`), "origin 3"},
		{chapter(`{"origin":-1,"path":"a"}`), "origin -1"},
		{chapter(`{"origin":2,"path":"a"}`), "an index"},
		{chapter(`{"member":"b","origin":0,"path":"a"}`), "from a rule and"},
		{chapter(`{"member":"a","origin":1,"path":"a"}`), "member"},
		{chapter(`{"amended":[1],"origin":1,"path":"a"}`), "amended"},
		{chapter(`{"amended":[0,0],"origin":1,"path":"a"}`), "amended"},
		{chapter(`{"origin":1,"path":""}`), "impossible path"},
		{chapter(`{"origin":1,"path":"a"},{"origin":0,"path":"a"}`), "twice"},
		{chapter(`{"origin":1,"path":"b"},{"origin":0,"path":"a"}`), "out of order"},
		{chapter(`{"origin":1,"other":1,"path":"b"}`), "other"},
		{chapter(`{"origin":1, "path":"b"}`), "canonical"},
		{chapter(`{"path":"b","origin":1}`), "canonical"},
		{chapter(``) + "\n", "canonical"},
		{`{"lines":null,` + origin, "0 lines"},
		{strings.Replace(chapter(``), ledger.ChapterSchema, "x", 1), "schema"},
		{strings.Replace(chapter(``), `,"text":"x"`, ``, 1), "what it does"},
		{strings.Replace(chapter(``), `"kind":"file"`, `"kind":"go"`, 1), "made of"},
		{strings.Replace(chapter(``), `"kind":"file"`, `"kind":"debian"`, 1), "no digest"},
		{strings.Replace(chapter(``), `"kind":"file"`, `"kind":"x"`, 1), "not known"},
		{``, "cannot be read"},
	} {
		_, err := ledger.ParseChapter([]byte(c.text))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}

// checkForms: whatever parses is canonical, and there is one form of it.
func checkForms(t *testing.T, b []byte) {
	t.Helper()
	if c, err := ledger.ParseChapter(b); err == nil {
		if again, err := c.Canonical(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a chapter was read that is written otherwise: %v\n%s\n%s", err, b, again)
		}
	}
	if l, err := ledger.Parse(b); err == nil {
		if again, err := l.Canonical(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a ledger was read that is written otherwise: %v\n%s\n%s", err, b, again)
		}
	}
}

func FuzzChapter(f *testing.F) {
	o, d := sample(f)
	l, err := ledger.Parse(o[d])
	if err != nil {
		f.Fatal(err)
	}
	for _, y := range l.Layers {
		f.Add(o[y.Chapter])
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkForms(t, b) })
}

func FuzzLedger(f *testing.F) {
	o, d := sample(f)
	f.Add(o[d])
	f.Fuzz(func(t *testing.T, b []byte) {
		checkForms(t, b)
		o[digest.FromBytes(b)] = b
		if book, err := ledger.Read(o, digest.FromBytes(b)); err == nil && len(ledger.Check(book, book.Tree())) > 0 {
			t.Error("a book is not what it says")
		}
		if digest.FromBytes(b) != d {
			delete(o, digest.FromBytes(b))
		}
	})
}
