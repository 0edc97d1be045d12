// Package minimal decides what of a tree of packages remains when only what its
// programs are linked with is wanted: the ELF closure. It is a function of the tree and
// of what the executables in it say, see [Select]; the bytes come from a function that
// is passed in.
//
// Libraries are looked for as ld.so(8) does, without /etc/ld.so.cache, LD_LIBRARY_PATH
// and the directories glibc-hwcaps, which hold variants of what is found without them.
// What is loaded by name at run time (dlopen: NSS, PAM, codecs, modules of interpreters)
// and the interpreter of a script cannot be known here and is the caller's to keep.
package minimal

import (
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Want is what remains besides what executables need.
type Want struct {
	Owner    func(i int) string // package of entry i of the tree; empty: a rule made it, and it stays, a link if it leads somewhere then
	Packages []string           // whose files all remain
	Keep     []string           // globs of paths
}

// always are data that any program may ask the C library for, where packages have them.
var always = []string{
	"etc/os-release", "usr/lib/os-release", "etc/nsswitch.conf", "etc/host.conf", "etc/gai.conf", "etc/services", "etc/protocols",
	"etc/localtime", "usr/share/zoneinfo/UTC", "usr/share/zoneinfo/Etc/UTC", "usr/lib/locale/C.utf8/**",
	"usr/share/common-licenses/*", // which copyright files refer to
}

// Facts gives what a regular file says as an ELF file; nil for another one.
type Facts func(e image.Entry) (*ELF, error)

// Select gives the indexes of the entries that remain, ascending: a complete tree.
// A library that is needed and not there is a fault that names it, and all of them are
// told at once.
func Select(t image.Tree, w Want, facts Facts) ([]int, error) {
	s := &selection{tree: t, facts: facts, stays: make([]bool, len(t.Entries)), index: make(map[string]int, len(t.Entries)), seen: map[string]bool{}}
	for i, e := range t.Entries {
		s.index[e.Path] = i
	}
	for i := range t.Entries {
		if slices.Contains(w.Packages, w.Owner(i)) {
			s.keep(i)
		}
	}
	for _, glob := range always {
		s.match(glob)
	}
	for _, glob := range w.Keep {
		if s.match(glob) == 0 {
			s.faults = append(s.faults, fault.New(fault.Invalid, "nothing in the packages matches %q", "/"+glob).
				Mend("mend the glob, take it out of  keep:  or add the package that has it"))
		}
	}
	if err := s.close(); err != nil {
		return nil, err
	}
	if len(s.faults) > 0 {
		return nil, s.faults
	}
	s.copyrights(w.Owner)
	s.made(func(i int) bool { return w.Owner(i) == "" })
	return s.result(), nil
}

// selection is what remains, under way.
type selection struct {
	tree   image.Tree
	facts  Facts
	stays  []bool
	index  map[string]int
	todo   []object
	seen   map[string]bool
	faults fault.List
}

// match keeps what a glob matches. Links in the directories before its first wildcard
// are followed: /bin/sh is usr/bin/sh where /bin is a link.
func (s *selection) match(glob string) (matches int) {
	dir, pattern := doublestar.SplitPattern(glob)
	if to, found, err := s.tree.Follow(dir); err == nil && found {
		glob = path.Join(to, pattern)
	}
	for i, e := range s.tree.Entries {
		if ok, _ := doublestar.Match(glob, e.Path); ok { // an invalid one matches nothing
			matches++
			s.keep(i)
		}
	}
	return matches
}

// keep lets an entry stay, with where it leads as a link, and what it needs as an
// executable.
func (s *selection) keep(i int) {
	if s.stays[i] {
		return
	}
	s.stays[i] = true
	switch e := s.tree.Entries[i]; e.Type {
	case image.Symlink:
		if at, ok := s.walk(e.Path); ok {
			s.keep(at)
		}
	case image.File:
		s.todo = append(s.todo, object{path: e.Path, origin: path.Dir(e.Path)})
	}
}

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// walk follows a path through symbolic links and keeps every link on the way. It gives
// the entry it ends at, which it does not keep.
func (s *selection) walk(p string) (int, bool) {
	rest, at := strings.Split(p, "/"), "."
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		i, ok := s.index[next]
		if !ok {
			return 0, false
		}
		e := s.tree.Entries[i]
		if e.Type != image.Symlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return 0, false
		}
		s.stays[i] = true
		if strings.HasPrefix(e.Link, "/") {
			at = "."
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	i, ok := s.index[at]
	return i, ok
}

// copyrights keeps under which terms the files that stay may be copied.
func (s *selection) copyrights(owner func(i int) string) {
	done := map[string]bool{"": true}
	for i, e := range s.tree.Entries {
		if name := owner(i); s.stays[i] && e.Type != image.Dir && !done[name] {
			done[name] = true
			if at, ok := s.walk("usr/share/doc/" + name + "/copyright"); ok {
				s.stays[at] = true
			}
		}
	}
}

// made keeps what rules made: directories and files, and the links that lead to
// something that stays. Directories above come with what is in them.
func (s *selection) made(by func(i int) bool) {
	for i, e := range s.tree.Entries {
		if e.Type != image.Symlink && by(i) {
			s.stays[i] = true
		}
	}
	s.parents()
	for again := true; again; {
		again = false
		for i, e := range s.tree.Entries {
			if e.Type != image.Symlink || s.stays[i] || !by(i) {
				continue
			}
			to := e.Link
			if !strings.HasPrefix(to, "/") {
				to = path.Join(path.Dir(e.Path), to)
			}
			if at, _, err := s.tree.Follow(to); err == nil && s.has(at) {
				s.stays[i], again = true, true
				s.walk(e.Path)
			}
		}
	}
}

func (s *selection) has(p string) bool { i, ok := s.index[p]; return ok && s.stays[i] }

// parents keeps the directories above everything that stays.
func (s *selection) parents() {
	for i, e := range s.tree.Entries {
		if !s.stays[i] {
			continue
		}
		for up := path.Dir(e.Path); ; up = path.Dir(up) {
			if at, ok := s.index[up]; ok {
				s.stays[at] = true
			}
			if up == "." {
				break
			}
		}
	}
}

func (s *selection) result() []int {
	s.parents()
	out := make([]int, 0, 256)
	for i, stays := range s.stays {
		if stays {
			out = append(out, i)
		}
	}
	return slices.Clip(out)
}
