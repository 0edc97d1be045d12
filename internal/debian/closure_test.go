package debian

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// indexOf makes an index from lines "name version | Field: value | …".
func indexOf(t *testing.T, lines ...string) *index {
	t.Helper()
	x := newIndex("amd64")
	for i, l := range lines {
		parts := strings.Split(l, "; ")
		name, version, _ := strings.Cut(parts[0], " ")
		text := "Package: " + name + "\nVersion: " + version + "\nArchitecture: amd64\nFilename: pool/" + name +
			".deb\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\n" + strings.Join(parts[1:], "\n") + "\n"
		if err := x.add(text, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.seal(); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestClosure(t *testing.T) {
	for _, c := range []struct {
		name           string
		index          []string
		roots, exclude []string
		want           string // names
		fails          []string
		kind           fault.Kind
	}{
		{
			name:  "depends, pre-depends, not recommends",
			index: []string{"app 1; Depends: lib (>= 2); Pre-Depends: pre; Recommends: rec", "lib 2", "pre 1", "rec 1"},
			roots: []string{"app"}, want: "app lib pre",
		}, {
			name:  "essential packages are not added",
			index: []string{"app 1", "base 1; Essential: yes"}, roots: []string{"app"}, want: "app",
		}, {
			name:  "the highest version wins, whatever the order",
			index: []string{"app 1; Depends: lib (>= 1:1)", "lib 9", "lib 1:1.0~rc1", "lib 1:1.0"}, roots: []string{"app"}, want: "app lib",
		}, {
			name:  "the first alternative that can be had",
			index: []string{"app 1; Depends: gone | old (>= 5) | one | two", "old 4", "one 1", "two 1"}, roots: []string{"app"}, want: "app one",
		}, {
			name:  "an alternative that is already chosen",
			index: []string{"app 1; Depends: one | two", "one 1", "two 1"}, roots: []string{"app", "two"}, want: "app two",
		}, {
			name:  "provides",
			index: []string{"app 1; Depends: mail-agent", "b-mail 1; Provides: mail-agent", "a-mail 1; Provides: mail-agent"}, roots: []string{"app"}, want: "a-mail app",
		}, {
			name:  "versioned provides",
			index: []string{"app 1; Depends: api (>= 3)", "aa 1; Provides: api", "bb 1; Provides: api (= 2)", "cc 1; Provides: api (= 3.1)"},
			roots: []string{"app"}, want: "app cc",
		}, {
			name:  "the more important provider",
			index: []string{"app 1; Depends: awk", "aaa 1; Provides: awk; Priority: optional", "mawk 1; Provides: awk; Priority: required"}, roots: []string{"app"}, want: "app mawk",
		}, {
			name:  "architecture qualifiers",
			index: []string{"app 1; Depends: py:any, lib:amd64", "py 1; Multi-Arch: allowed", "lib 1"}, roots: []string{"app"}, want: "app lib py",
		}, {
			name:  "a foreign architecture cannot be had",
			index: []string{"app 1; Depends: lib:i386", "lib 1"}, roots: []string{"app"}, kind: fault.Invalid, fails: []string{"app (1) needs lib:i386"},
		}, {
			name:  "a cycle ends",
			index: []string{"aa 1; Depends: bb", "bb 1; Depends: aa"}, roots: []string{"aa"}, want: "aa bb",
		}, {
			name:  "excluded dependencies are left out with their alternatives",
			index: []string{"app 1; Depends: debconf | cdebconf, lib", "debconf 1", "cdebconf 1", "lib 1"}, roots: []string{"app"}, exclude: []string{"debconf"}, want: "app lib",
		}, {
			name:  "an alternative in conflict is passed over",
			index: []string{"app 1; Depends: xx | yy", "xx 1; Conflicts: app", "yy 1"}, roots: []string{"app"}, want: "app yy",
		}, {
			name:  "a package may conflict with what it provides itself",
			index: []string{"mta 1; Provides: agent; Conflicts: agent"}, roots: []string{"mta"}, want: "mta",
		}, {
			name:  "breaks an older version alone",
			index: []string{"app 1; Breaks: lib (<< 2); Depends: lib", "lib 2"}, roots: []string{"app"}, want: "app lib",
		}, {
			name:  "unknown names, all at once, with the nearest",
			index: []string{"nginx-light 1", "redis 1"}, roots: []string{"ngnix-light", "rediss"}, kind: fault.NotFound,
			fails: []string{"no package ngnix-light", "nearest: nginx-light", "no package rediss", "write  redis"},
		}, {
			name:  "a virtual name as root",
			index: []string{"mawk 1; Provides: awk"}, roots: []string{"awk"}, kind: fault.NotFound, fails: []string{"virtual", "mawk"},
		}, {
			name:  "the chain of who needs what cannot be had",
			index: []string{"app 1; Depends: mid", "mid 2; Depends: low (>= 9)", "low 3"}, roots: []string{"app"}, kind: fault.Invalid,
			fails: []string{"mid (2) needs low (>= 9)", "the archive has 3", "wanted: app -> mid", "exclude: [low]"},
		}, {
			name:  "both sides of a conflict between roots",
			index: []string{"aa 1; Conflicts: bb (<< 3)", "bb 2"}, roots: []string{"aa", "bb"}, kind: fault.Invalid,
			fails: []string{"aa (1) and bb (2) cannot be together", "aa conflicts with bb (<< 3)"},
		}, {
			name:  "a conflict deep down",
			index: []string{"app 1; Depends: xx, yy", "xx 1", "yy 1; Conflicts: xx"}, roots: []string{"app"}, kind: fault.Invalid,
			fails: []string{"app (1) needs yy", "yy conflicts with xx"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 3 { // maps must not show
				x := indexOf(t, c.index...)
				nodes, err := x.close(c.roots, c.exclude)
				if c.fails != nil {
					wantFault(t, err, c.kind, c.fails...)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, n := range nodes {
					names = append(names, n.name)
				}
				if got := strings.Join(names, " "); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				slices.Reverse(c.roots)
			}
		})
	}
}

func TestStanza(t *testing.T) {
	text := "\n# comment\nPackage: a\nDescription: short\n long\n .\n more \nEmpty:\n\n\nPackage: b\n"
	s, rest, err := nextStanza(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := stanza{{"Package", "a"}, {"Description", "short\n long\n .\n more"}, {"Empty", ""}}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(field{})); diff != "" {
		t.Error(diff)
	}
	if s, _, err = nextStanza(rest, s); err != nil || s.get("PACKAGE") != "b" {
		t.Errorf("%v %v", s, err)
	}
	for _, bad := range []string{" x\n", "no colon\n", "a: 1\nA: 2\n", "a b: 1\n", ":\n"} {
		if _, _, err := nextStanza(bad, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzStanza(f *testing.F) {
	f.Add("Package: a\nDepends: b (>= 1), c | d:any\n\nPackage: b\nVersion: 1\n")
	f.Add("a: b\n c\n#\n d\n")
	f.Fuzz(func(t *testing.T, text string) {
		for left := text; ; {
			s, rest, err := nextStanza(left, nil)
			if err != nil || len(s) == 0 {
				break
			}
			if len(rest) >= len(left) {
				t.Fatal("no progress")
			}
			left = rest
		}
		x := newIndex("amd64")
		if x.add(text, 0) != nil || x.seal() != nil {
			return
		}
		for n := range x.byName {
			nodes, err := x.close([]string{n}, nil)
			if err == nil && len(nodes) == 0 {
				t.Fatal("a closure without its root")
			}
		}
	})
}
