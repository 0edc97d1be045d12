package debian

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// TestChapter shows what entries of packages and rules are explained by.
func TestChapter(t *testing.T) {
	a := newArchive(t, deb{name: "app", version: "1", fields: "Source: apps (2)\n", data: []member{
		{name: "./bin/", typ: tar.TypeDir, mode: 0o755}, {name: "./bin/app", body: "app", mode: 0o4755}, {name: "./late", body: "x"}, {name: "./etc/old", typ: tar.TypeSymlink, link: "new"},
	}})
	store := openStore(t)
	lock := a.fetched(t, store, a.source("app"))
	made, err := Tree(t.Context(), store, lock, a.source("app"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := store.ReadAll(made.Chapter, ledger.MaxChapter)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.ParseChapter(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Explains(made.Tree); err != nil {
		t.Error(err)
	}
	got := map[string]string{}
	for _, l := range c.Lines {
		o := c.Origins[l.Origin]
		words := []string{string(o.Kind), o.Name, l.Member}
		for _, n := range l.Amended {
			words = append(words, "by", c.Origins[n].Name)
		}
		got[l.Path] = strings.Join(words, " ")
		if o.Kind == ledger.KindDebian && (o.Source != "apps" || o.SourceVersion != "2" || o.Digest != lock.Packages[0].SHA256) {
			t.Errorf("%s comes from %+v", l.Path, o)
		}
	}
	for path, want := range map[string]string{
		"usr/bin/app": "debian app bin/app by times/1 by set-id/1", "late": "debian app  by times/1", "etc/old": "debian app  by times/1",
		"bin": "rule usrmerge/1 ", "etc/passwd": "rule accounts/1 ", "var": "rule parents/1 ", ".": "rule parents/1 ", "tmp": "rule directories/1 ",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
}

// TestUnexplained plants an entry that nobody brought.
func TestUnexplained(t *testing.T) {
	e := image.Entry{Path: "usr/planted", Type: image.Dir, Mode: 0o755}
	a := &assembly{lock: Lock{Requested: []string{"app"}}, entries: map[string]placed{e.Path: {Entry: e}}}
	_, err := a.chapter(image.Sorted([]image.Entry{e}).WithParents(0))
	wantFault(t, err, fault.Invalid, "/usr/planted is unexplained")
}
