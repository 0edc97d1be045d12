package minimal

import (
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// object is an executable or a library that is looked at, as the loader would come by it.
type object struct {
	path   string
	origin string   // $ORIGIN
	rpaths []string // directories of DT_RPATH of those that load it, nearest first
}

// triplets name the directories of a machine (https://wiki.debian.org/Multiarch/Tuples).
var triplets = map[elf.Machine]map[elf.Class]string{
	elf.EM_X86_64:  {elf.ELFCLASS64: "x86_64-linux-gnu"},
	elf.EM_AARCH64: {elf.ELFCLASS64: "aarch64-linux-gnu"},
	elf.EM_386:     {elf.ELFCLASS32: "i386-linux-gnu"},
	elf.EM_ARM:     {elf.ELFCLASS32: "arm-linux-gnueabihf"},
	elf.EM_PPC64:   {elf.ELFCLASS64: "powerpc64le-linux-gnu"},
	elf.EM_S390:    {elf.ELFCLASS64: "s390x-linux-gnu"},
	elf.EM_RISCV:   {elf.ELFCLASS64: "riscv64-linux-gnu"},
}

// close keeps what the executables and libraries that stay need, until nothing is new.
func (s *selection) close() error {
	for len(s.todo) > 0 {
		o := s.todo[0]
		s.todo = s.todo[1:]
		key := o.path + "\x00" + o.origin + "\x00" + strings.Join(o.rpaths, ":")
		if s.seen[key] {
			continue
		}
		s.seen[key] = true
		i, ok := s.index[o.path]
		if !ok {
			continue
		}
		facts, err := s.facts(s.tree.Entries[i])
		if err != nil {
			return fmt.Errorf("reading /%s: %w", o.path, err)
		}
		if facts != nil {
			s.needs(o, facts)
		}
	}
	return nil
}

// needs keeps what one executable or library is loaded with.
func (s *selection) needs(o object, f *ELF) {
	if f.Interpreter != "" {
		at, ok := s.walk(f.Interpreter)
		if !ok {
			s.missing(o, f.Interpreter, nil)
		} else {
			s.keep(at)
		}
	}
	own := s.expand(f.RPath, o, f)
	dirs, hand := slices.Concat(own, o.rpaths), slices.Concat(own, o.rpaths)
	if len(f.RunPath) > 0 { // DT_RPATH is of no account then, and DT_RUNPATH is for the object alone
		dirs, hand = s.expand(f.RunPath, o, f), o.rpaths
	}
	dirs = append(dirs, defaults(f)...)
	for _, name := range f.Needed {
		found, at, ok := s.find(name, dirs, f)
		if !ok {
			s.missing(o, name, dirs)
			continue
		}
		s.stays[at] = true
		s.todo = append(s.todo, object{path: s.tree.Entries[at].Path, origin: path.Dir(found), rpaths: slices.Compact(slices.Clone(hand))})
	}
}

// defaults are the directories that are searched last.
func defaults(f *ELF) []string {
	dirs := []string{"lib", "usr/lib"}
	if t := triplets[f.Machine][f.Class]; t != "" {
		dirs = append([]string{"lib/" + t, "usr/lib/" + t}, dirs...)
	}
	return dirs
}

// expand puts $ORIGIN and $LIB into search paths; a directory with another word in it,
// or a relative one, which depends on where a program is started, is left out.
func (s *selection) expand(lists []string, o object, f *ELF) []string {
	lib := "lib"
	if t := triplets[f.Machine][f.Class]; t != "" {
		lib += "/" + t
	}
	words := strings.NewReplacer("${ORIGIN}", "/"+o.origin, "$ORIGIN", "/"+o.origin, "${LIB}", lib, "$LIB", lib)
	var out []string
	for _, list := range lists {
		for _, dir := range strings.Split(list, ":") {
			dir = words.Replace(dir)
			if strings.HasPrefix(dir, "/") && !strings.Contains(dir, "$") {
				out = append(out, strings.TrimPrefix(dir, "/"))
			}
		}
	}
	return out
}

// find looks for a library, of the same machine as who needs it, and keeps the links
// on the way to it. It gives the name it was found by.
func (s *selection) find(name string, dirs []string, f *ELF) (found string, at int, ok bool) {
	if strings.Contains(name, "/") {
		dirs = []string{""}
		if !strings.HasPrefix(name, "/") {
			return "", 0, false
		}
	}
	for _, dir := range dirs {
		found = dir + "/" + name
		resolved, there, err := s.tree.Follow(found)
		if err != nil || !there {
			continue
		}
		e, ok := s.tree.Lookup(resolved)
		if !ok {
			continue
		}
		if lib, err := s.facts(e); err != nil || lib == nil || lib.Machine != f.Machine || lib.Class != f.Class {
			continue
		}
		at, ok := s.walk(found)
		return strings.TrimPrefix(path.Clean("/"+found), "/"), at, ok
	}
	return "", 0, false
}

func (s *selection) missing(o object, name string, dirs []string) {
	one := fault.New(fault.Invalid, "/%s needs %s, which is in none of the packages", o.path, name).
		Mend("add the package that has it, take it out of  exclude:  or do not minimise")
	if len(dirs) > 0 {
		one = one.Detail("looked in: /" + strings.Join(dirs, ", /"))
	}
	for _, old := range s.faults {
		if old.What == one.What {
			return
		}
	}
	if len(s.faults) < 50 {
		s.faults = append(s.faults, one)
	}
}
