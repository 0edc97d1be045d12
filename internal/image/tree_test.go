package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// bag is objects in memory.
type bag map[digest.Digest]string

func (b bag) Open(d digest.Digest) (io.ReadCloser, error) {
	s, ok := b[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(s)), nil
}

func dir(p string) Entry          { return Entry{Path: p, Type: Dir, Mode: 0o755, MTime: 1} }
func link(p, target string) Entry { return Entry{Path: p, Type: Symlink, Mode: 0o777, Link: target} }
func file(p, content string) Entry {
	return Entry{Path: p, Type: File, Mode: 0o644, MTime: 7, Size: int64(len(content)), Digest: digest.FromString(content)}
}
func tree(entries ...Entry) Tree { return Sorted(entries).WithParents(1) }

func TestValidateRefuses(t *testing.T) {
	good := file("a", "x")
	with := func(change func(*Entry)) Tree { e := good; change(&e); return tree(e) }
	for name, bad := range map[string]Tree{
		"empty":             {},
		"no root":           {Entries: []Entry{good}},
		"unsorted":          {Entries: []Entry{dir("."), file("b", ""), file("a", "")}},
		"twice":             {Entries: []Entry{dir("."), good, good}},
		"no parent":         {Entries: []Entry{dir("."), file("a/b", "")}},
		"parent is a file":  {Entries: []Entry{dir("."), good, file("a/b", "")}},
		"parent is a link":  {Entries: []Entry{dir("."), link("a", "b"), file("a/b", "")}},
		"escape":            {Entries: []Entry{dir("."), file("../a", "x")}},
		"absolute":          {Entries: []Entry{dir("."), file("/a", "x")}},
		"not clean":         {Entries: []Entry{dir("."), file("a//b", "x")}},
		"NUL":               with(func(e *Entry) { e.Path = "a\x00b" }),
		"not UTF-8":         with(func(e *Entry) { e.Path = "a\xff" }),
		"long name":         with(func(e *Entry) { e.Path = strings.Repeat("n", 256) }),
		"whiteout":          with(func(e *Entry) { e.Path = ".wh.passwd" }),
		"mode":              with(func(e *Entry) { e.Mode = 0o100644 }),
		"owner":             with(func(e *Entry) { e.UID = -1 }),
		"time":              with(func(e *Entry) { e.MTime = -1 }),
		"type":              with(func(e *Entry) { e.Type = "device" }),
		"digest":            with(func(e *Entry) { e.Digest = "sha256:../../etc/passwd" }),
		"size":              with(func(e *Entry) { e.Size = 0 }),
		"link on a file":    with(func(e *Entry) { e.Link = "b" }),
		"content in a dir":  tree(Entry{Path: "d", Type: Dir, Size: 1}),
		"mode of a link":    tree(Entry{Path: "l", Type: Symlink, Mode: 0o644, Link: "a"}),
		"empty link":        tree(link("l", "")),
		"overlay attribute": with(func(e *Entry) { e.Xattrs = map[string]string{"trusted.overlay.redirect": "/ab/cd"} }),
		"attribute class":   with(func(e *Entry) { e.Xattrs = map[string]string{"system.posix_acl_access": "x"} }),
		"attribute name":    with(func(e *Entry) { e.Xattrs = map[string]string{"user.a=b": "x"} }),
		"large attribute":   with(func(e *Entry) { e.Xattrs = map[string]string{"user.a": strings.Repeat("x", maxXattr+1)} }),
	} {
		if err := bad.Validate(); err == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%s: Validate gives %v, want an Invalid fault", name, err)
		}
	}
	if err := tree(good).Validate(); err != nil {
		t.Error(err)
	}
}

func TestResolve(t *testing.T) {
	tr := tree(dir("usr/lib"), file("usr/lib/x", "x"), link("lib", "usr/lib"), link("abs", "/lib/x"),
		link("up", "../../../usr"), link("loop", "loop"), link("gone", "nowhere/else"), link("usr/back", "../lib"))
	for p, want := range map[string]string{
		"/": ".", "": ".", "lib": "usr/lib", "/lib/x": "usr/lib/x", "abs": "usr/lib/x", "up/lib/../lib/x": "usr/lib/x",
		"lib/../x": "", "../../lib/x": "usr/lib/x", "usr/back/x": "usr/lib/x", "gone": "", "missing": "", "loop": "", "abs/y": "", "lib/x/": "usr/lib/x",
	} {
		got, err := tr.Resolve(p)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("Resolve(%q) = %q, %v; want %q", p, got, err, want)
		}
	}
	if _, err := tr.Resolve("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Resolve of a missing path: %v", err)
	}
	for p, want := range map[string]string{"lib/new": "usr/lib/new", "gone/z": "nowhere/else/z", "/abs": "abs", "lib": "lib", "a/b": "a/b"} {
		if got, err := tr.Place(p); got != want || err != nil {
			t.Errorf("Place(%q) = %q, %v; want %q", p, got, err, want)
		}
	}
	if e, ok := tr.Lookup("/usr//lib/x"); !ok || e.Path != "usr/lib/x" {
		t.Errorf("Lookup: %v, %v", e, ok)
	}
}

func TestMerge(t *testing.T) {
	base := tree(dir("usr/lib"), link("lib", "usr/lib"), file("etc/a", "1"))
	got, err := Merge(base, Tree{Entries: []Entry{file("lib/x", "x"), dir("lib"), file("etc/a", "2"), file("new/y", "y")}})
	if err != nil {
		t.Fatal(err)
	}
	want := tree(dir("usr/lib"), link("lib", "usr/lib"), file("usr/lib/x", "x"), file("etc/a", "2"), file("new/y", "y"))
	if diff := cmp.Diff(want, got.WithParents(1)); diff != "" {
		t.Error(diff)
	}
	for _, bad := range [][2]Tree{
		{tree(dir("a")), tree(file("a", ""))},
		{tree(file("a", "")), tree(dir("a"))},
		{tree(file("a", "")), tree(file("a/b", ""))},
		{tree(file("a/b", "")), {Entries: []Entry{file("a", "")}}},
		{{Entries: []Entry{file("a/b", "")}}, {Entries: []Entry{file("a", "")}}},
		{tree(dir("a")), tree(link("a", "b"))},
		{tree(link("a", "b"), file("b", "")), tree(dir("a"))},
		{tree(link("a", "a")), tree(file("a/b", ""))},
	} {
		if got, err := Merge(bad[0], bad[1]); err == nil {
			t.Errorf("Merge of\n%v\nand\n%v\ngives\n%v\nwant an error", bad[0], bad[1], got)
		}
	}
	_, err = Merge(tree(dir("opt/a")), tree(file("opt/a", "")))
	if text := fmt.Sprint(err); !strings.Contains(text, `source 1 has the dir "opt/a"`) || !strings.Contains(text, `source 2 has the file "opt/a"`) {
		t.Errorf("the error does not name both: %v", err)
	}
}

// trees draws valid trees whose directories are those whose names are in upper
// case, so that two of them can always be merged.
func trees(links bool) *rapid.Generator[Tree] {
	return rapid.Custom(func(r *rapid.T) Tree {
		at := map[string]Entry{}
		for range rapid.IntRange(0, 12).Draw(r, "entries") {
			p := path.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"A", "B", "C-", "É"}), 0, 3).Draw(r, "dirs")...)
			e := Entry{Path: p, Type: Dir}
			if name := rapid.SampledFrom([]string{"", "a", "b c", "x\n"}).Draw(r, "name"); name != "" {
				e = file(path.Join(p, name), rapid.SampledFrom([]string{"", "1", "22"}).Draw(r, "content"))
			}
			if e.Path == "" {
				continue
			}
			e.Mode = uint32(rapid.IntRange(0, 0o7777).Draw(r, "mode"))
			e.UID = rapid.IntRange(0, maxID).Draw(r, "uid")
			e.MTime = rapid.Int64Range(0, maxMTime).Draw(r, "mtime")
			if links && e.Type == File && rapid.Bool().Draw(r, "link") {
				e = link(e.Path, rapid.SampledFrom([]string{"a", "/A/b c", "../..", "no"}).Draw(r, "target"))
			}
			if e.Type == File && rapid.Bool().Draw(r, "xattr") {
				e.Xattrs = map[string]string{"user.a": "\x00\xff", "security.capability": rapid.StringN(0, 40, -1).Draw(r, "value")}
			}
			at[e.Path] = e
		}
		var t Tree
		for _, e := range at {
			t.Entries = append(t.Entries, e)
		}
		return t.WithParents(rapid.Int64Range(0, 5).Draw(r, "parents"))
	})
}

func TestMergeProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b, c := trees(false).Draw(r, "a"), trees(false).Draw(r, "b"), trees(false).Draw(r, "c")
		merge := func(layers ...Tree) Tree {
			m, err := Merge(layers...)
			if err != nil {
				r.Fatal(err)
			}
			return m
		}
		all := merge(a, b, c)
		if err := all.Validate(); err != nil {
			r.Fatal(err)
		}
		for _, law := range []struct {
			name       string
			left, want Tree
		}{
			{"merging is associative", merge(merge(a, b), c), all},
			{"to the right too", merge(a, merge(b, c)), all},
			{"a tree over itself is itself", merge(a, a), a},
			{"one tree is itself", merge(a), a},
		} {
			if diff := cmp.Diff(law.want, law.left); diff != "" {
				r.Fatalf("%s: %s", law.name, diff)
			}
		}
		for _, e := range c.Entries {
			if got, _ := all.Lookup(e.Path); !cmp.Equal(got, e) {
				r.Fatalf("the last tree does not win at %s", e.Path)
			}
		}
	})
}

func TestMarshalProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := trees(true).Draw(r, "a"), trees(true).Draw(r, "b")
		got, err := UnmarshalTree(a.Marshal())
		if diff := cmp.Diff(a, got); diff != "" || err != nil {
			r.Fatalf("decoding gives another tree: %v\n%s", err, diff)
		}
		if len(Diff(a, b)) == 0 != bytes.Equal(a.Marshal(), b.Marshal()) {
			r.Fatal("Diff and Marshal disagree about whether two trees are equal")
		}
		if got := apply(a, Diff(a, b)); !cmp.Equal(got, b) {
			r.Fatalf("the differences do not lead from one to the other:\n%s", cmp.Diff(b, got))
		}
	})
}

func apply(t Tree, changes []Change) Tree {
	at := map[string]Entry{}
	for _, e := range t.Entries {
		at[e.Path] = e
	}
	for _, c := range changes {
		if c.Kind == Removed {
			delete(at, c.Path)
		} else {
			at[c.Path] = *c.New
		}
	}
	var entries []Entry
	for _, e := range at {
		entries = append(entries, e)
	}
	return Sorted(entries)
}

func TestMarshalSize(t *testing.T) {
	var entries []Entry
	for i := range 2500 {
		entries = append(entries, file(fmt.Sprintf("usr/share/doc/package-%d/some-file-%d.html", i/10, i), fmt.Sprint(i)))
	}
	size := len(tree(entries...).Marshal())
	t.Logf("2,500 files: %d bytes", size)
	if size > 150_000 {
		t.Errorf("2,500 files take %d bytes", size)
	}
}

func FuzzUnmarshalTree(f *testing.F) {
	f.Add([]byte(treeMagic))
	f.Add(tree(file("a/b", "x"), link("a/c", "b"), dir("z")).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := UnmarshalTree(b)
		if err == nil && !bytes.Equal(tr.Marshal(), b) {
			t.Error("decoding and encoding gives other bytes")
		}
	})
}

func TestDiffInWords(t *testing.T) {
	old := file("a", "1")
	changed := file("a", "22")
	changed.Mode, changed.UID, changed.MTime, changed.Xattrs = 0o755, 5, 8, map[string]string{"user.x": "1"}
	got := Diff(tree(old, file("b", "")), tree(changed, file("c", "")))
	var text []string
	for _, c := range got {
		text = append(text, string(c.Kind)+" "+c.Path+": "+strings.Join(c.What, ", "))
	}
	want := []string{
		"changed a: mode 0644 -> 0755, owner 0:0 -> 5:0, content, size 1 -> 2, modified 1970-01-01T00:00:07Z -> 1970-01-01T00:00:08Z, attribute user.x added",
		"removed b: ", "added c: ",
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestTarReadsBack(t *testing.T) {
	objects := bag{}
	add := func(p, content string) Entry { e := file(p, content); objects[e.Digest] = content; return e }
	rich := add("etc/"+strings.Repeat("long", 40)+"/é", "content")
	rich.Mode, rich.UID, rich.GID = 0o4751, 3_000_000, 65534
	rich.Xattrs = map[string]string{"user.x": "1\x002", "security.capability": "\x01"}
	want := tree(rich, add("etc/empty", ""), link("etc/l", "../"+strings.Repeat("t", 150)), dir("var"))
	var b bytes.Buffer
	if err := WriteTar(&b, want, objects); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readTar(t, b.Bytes())); diff != "" {
		t.Error(diff)
	}
	d, n, err := LayerDigest(Sorted(want.Entries), objects)
	if err != nil || d != digest.FromBytes(b.Bytes()) || n != int64(b.Len()) {
		t.Errorf("LayerDigest: %s, %d, %v", d, n, err)
	}
	if bytes.Contains(b.Bytes(), []byte("root")) {
		t.Error("the tar holds a user name")
	}
}

func readTar(t *testing.T, b []byte) Tree {
	t.Helper()
	var entries []Entry
	types := map[byte]Type{tar.TypeReg: File, tar.TypeDir: Dir, tar.TypeSymlink: Symlink}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return Sorted(entries)
		}
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{Path: CleanPath(h.Name), Type: types[h.Typeflag], Mode: uint32(h.Mode), UID: h.Uid, GID: h.Gid, MTime: h.ModTime.Unix(), Size: h.Size, Link: h.Linkname}
		if e.Type == File {
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			e.Digest = digest.FromBytes(content)
		}
		for name, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(name, "SCHILY.xattr."); ok {
				if e.Xattrs == nil {
					e.Xattrs = map[string]string{}
				}
				e.Xattrs[name] = value
			}
		}
		entries = append(entries, e)
	}
}

func TestTarForTheSystemsTar(t *testing.T) {
	objects := bag{digest.FromString("hello"): "hello"}
	e := file("d/hello", "hello")
	e.Mode = 0o751
	var b bytes.Buffer
	if err := WriteTar(&b, tree(e, link("d/l", "hello")), objects); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	cmd := exec.Command("tar", "-xpf", "-", "-C", to)
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(to, "d/l"))
	if err != nil || string(content) != "hello" {
		t.Errorf("read %q, %v", content, err)
	}
	fi, err := os.Stat(filepath.Join(to, "d/hello"))
	if err != nil || fi.Mode() != 0o751 || fi.ModTime().Unix() != 7 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestTarRefusesOtherBytes(t *testing.T) {
	for _, wrong := range []string{"hellO", "hell", ""} {
		objects := bag{digest.FromString("hello"): wrong}
		err := WriteTar(io.Discard, tree(file("a", "hello")), objects)
		if f := fault.Of(err); f == nil || f.Kind != fault.Refused {
			t.Errorf("packing %q as hello: %v, want a refusal", wrong, err)
		}
	}
	if err := WriteTar(io.Discard, tree(file("a", "hello")), bag{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("packing without the object: %v", err)
	}
}
