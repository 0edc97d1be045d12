package debian

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

func TestUnpack(t *testing.T) {
	d := deb{name: "app", version: "1", scripts: map[string]string{"postinst": "#!/bin/sh\n"}, fields: "Replaces: old (<< 2)\n", data: []member{
		{name: "./", typ: tar.TypeDir},
		{name: "./bin/", typ: tar.TypeDir},
		{name: "./bin/tool", mode: 0o4755, body: "tool", uid: 7},
		{name: "./usr/bin/", typ: tar.TypeDir},
		{name: "./usr/bin/tool", typ: tar.TypeSymlink, link: "/bin/tool"},
		{name: "./usr/bin/hard", typ: tar.TypeLink, link: "./bin/tool"},
		{name: "./usr/bin/up", typ: tar.TypeSymlink, link: "../../../../etc/passwd"},
		{name: "./var/mail/", typ: tar.TypeDir, mode: 0o2775},
		{name: "./var/run/app/", typ: tar.TypeDir},
	}}
	u, err := unpackDeb(bytes.NewReader(d.bytes(t)), "app", sink{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range u.Entries {
		got = append(got, string(e.Type)+" "+e.Path+" "+e.Link)
	}
	want := []string{
		"dir run/app ", "dir usr/bin ", "file usr/bin/hard ", "file usr/bin/tool ", "symlink usr/bin/up ../../../../etc/passwd", "dir var/mail ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	tool, hard := u.Entries[3], u.Entries[2]
	if tool.Digest != hard.Digest || tool.Mode != 0o755 || tool.UID != 7 || hard.Size != 4 || u.Entries[5].Mode != 0o2775 {
		t.Errorf("tool %+v, hard %+v", tool, hard)
	}
	if u.Scripts["postinst"] == "" || u.Control["Replaces"] != "old (<< 2)" {
		t.Errorf("%+v", u)
	}
}

// bomb is a gzip that expands a thousandfold.
func bomb(size int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, size)) // to memory
	_ = w.Close()
	return b.Bytes()
}

// sparse is a tar whose one file is said to be all hole: 3 GB in 2 kB.
func sparse(t *testing.T) []byte {
	records := ""
	for _, r := range []string{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.numblocks=1", "GNU.sparse.size=3000000000", "GNU.sparse.map=3000000000,0"} {
		records += fmt.Sprintf("%d %s\n", len(r)+4, r) // two digits, a blank and a newline
	}
	b := tarOf(t, []member{{name: "./PaxHeaders", body: records}, {name: "./hole"}})
	b[156] = 'x'
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestHostileDebsAreRefused(t *testing.T) {
	with := func(m ...member) []byte { return deb{name: "evil", version: "1", data: m}.bytes(t) }
	control := arFile{"control.tar.gz", gz(tarOf(t, []member{{name: "control", body: deb{name: "evil", version: "1"}.control()}}))}
	magic := arFile{"debian-binary", []byte("2.0\n")}
	data := arFile{"data.tar.gz", gz(tarOf(t, []member{{name: "./f", body: "f"}}))}
	sound := arOf(magic, control, data)
	many := make([]member, 0, 3)
	many = append(many, member{name: "./a", body: "1"}, member{name: "./a", body: "2"})
	for name, c := range map[string]struct {
		deb  []byte
		want []string
	}{
		"absolute path":         {with(member{name: "/etc/passwd", body: "x"}), []string{`member "/etc/passwd"`, "absolute"}},
		"dot dot":               {with(member{name: "./../etc/passwd", body: "x"}), []string{"leaves the root"}},
		"dot dot inside":        {with(member{name: "./usr/../../x", body: "x"}), []string{"leaves the root"}},
		"character device":      {with(member{name: "./dev/mem", typ: tar.TypeChar}), []string{`package evil: member "./dev/mem" is a device`}},
		"block device":          {with(member{name: "./dev/sda", typ: tar.TypeBlock}), []string{"is a device"}},
		"named pipe":            {with(member{name: "./p", typ: tar.TypeFifo}), []string{"named pipe"}},
		"through a link":        {with(member{name: "./l", typ: tar.TypeSymlink, link: "/etc"}, member{name: "./l/passwd", body: "x"}), []string{"through the symbolic link l"}},
		"link under a file":     {with(member{name: "./l/passwd", body: "x"}, member{name: "./l", typ: tar.TypeSymlink, link: "/etc"}), []string{"no directory"}},
		"hard link outwards":    {with(member{name: "./l", typ: tar.TypeLink, link: "/etc/shadow"}), []string{"no earlier file"}},
		"hard link to later":    {with(member{name: "./l", typ: tar.TypeLink, link: "./f"}, member{name: "./f", body: "x"}), []string{"no earlier file"}},
		"hard link to link":     {with(member{name: "./s", typ: tar.TypeSymlink, link: "x"}, member{name: "./l", typ: tar.TypeLink, link: "./s"}), []string{"no earlier file"}},
		"twice":                 {with(many...), []string{"stands twice"}},
		"two at one place":      {with(member{name: "./bin/x", body: "1"}, member{name: "./usr/bin/x", body: "2"}), []string{"meet at one place"}},
		"root as a file":        {with(member{name: "./.", typ: tar.TypeSymlink, link: "/x"}), []string{"root"}},
		"control characters":    {with(member{name: "./a\nb", body: "x"}), []string{"control characters"}},
		"not UTF-8":             {with(member{name: "./a\xff", body: "x"}), []string{"UTF-8"}},
		"a name too long":       {with(member{name: "./" + strings.Repeat("n", 300), body: "x"}), []string{"too long"}},
		"an impossible owner":   {with(member{name: "./f", body: "x", uid: 1 << 20}), []string{"owner"}},
		"a bin elsewhere":       {with(member{name: "./bin", typ: tar.TypeSymlink, link: "/tmp"}), []string{"instead of usr/bin"}},
		"a sparse file":         {arOf(magic, control, arFile{"data.tar", sparse(t)}), []string{"is a sparse file"}},
		"data before control":   {arOf(magic, data, control), []string{"data.tar.gz", "control.tar belongs"}},
		"no magic":              {arOf(control, data), []string{"debian-binary"}},
		"format 3":              {arOf(arFile{"debian-binary", []byte("3.0\n")}, control, data), []string{"version"}},
		"no data":               {arOf(magic, control), []string{"data.tar is missing"}},
		"something after":       {arOf(magic, control, data, data), []string{"after data.tar"}},
		"unknown compression":   {arOf(magic, control, arFile{"data.tar.lzma", data.body}), []string{`".lzma"`}},
		"no control file":       {arOf(magic, arFile{"control.tar", tarOf(t, nil)}, data), []string{"no control file"}},
		"not ar":                {[]byte("PK\x03\x04"), []string{"not an ar archive"}},
		"a bomb":                {arOf(magic, control, arFile{"data.tar.gz", bomb(200 << 20)}), []string{"bomb"}},
		"a bomb as control":     {arOf(magic, arFile{"control.tar.gz", bomb(70 << 20)}, data), []string{"control.tar.gz"}},
		"a damaged compression": {bytes.Replace(sound, data.body[len(data.body)-8:], []byte("12345678"), 1), []string{"data.tar.gz"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpackDeb(bytes.NewReader(c.deb), "evil", sink{})
			wantFault(t, err, fault.Refused, append(c.want, "evil")...)
		})
	}
	t.Run("cut short anywhere", func(t *testing.T) {
		for i := range sound[:len(sound)-1] { // the last byte is padding
			if _, err := unpackDeb(bytes.NewReader(sound[:i]), "evil", sink{}); err == nil {
				t.Fatalf("%d of %d bytes are taken for a package", i, len(sound))
			}
		}
	})
}

func FuzzAr(f *testing.F) {
	f.Add(arOf(arFile{"a", []byte("1")}, arFile{"b/", []byte("22")}))
	f.Add([]byte(arMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := newAr(bytes.NewReader(b))
		if err != nil {
			return
		}
		for total := int64(0); ; {
			m, err := a.next()
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, a)
			if total += n; total > int64(len(b)) || err == nil && n != m.size {
				t.Fatalf("member %q of %d bytes gave %d", m.name, m.size, n)
			}
		}
	})
}

func FuzzDeb(f *testing.F) {
	f.Add(deb{name: "app", version: "1", data: []member{{name: "./bin/a", body: "a"}, {name: "./l", typ: tar.TypeSymlink, link: "bin/a"}}}.bytes(f))
	control := arFile{"control.tar", tarOf(f, []member{{name: "control", body: deb{name: "app", version: "1"}.control()}})}
	f.Add(arOf(arFile{"debian-binary", []byte("2.0\n")}, control, arFile{"data.tar", tarOf(f, []member{
		{name: "./usr/", typ: tar.TypeDir}, {name: "./usr/f", body: "f"}, {name: "./usr/h", typ: tar.TypeLink, link: "./usr/f"}, {name: "./lib", typ: tar.TypeSymlink, link: "usr/lib"},
	})}))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := unpackDeb(bytes.NewReader(b), "fuzz", sink{})
		if err != nil {
			return
		}
		entries, err := merge([]*unpacked{u})
		if err != nil {
			return
		}
		var list []image.Entry
		for _, e := range entries {
			list = append(list, e.Entry)
		}
		if err := image.Sorted(list).WithParents(0).Validate(); err != nil && !strings.Contains(err.Error(), "would delete") {
			t.Fatalf("what was unpacked is no tree: %v", err)
		}
	})
}
