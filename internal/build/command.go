package build

import (
	"path"
	"sort"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// defaultPath is where a command without a slash is looked for, unless the
// component sets PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command checks that the program is in the artifact or among the config files,
// that it can be executed, and that the directory it starts in exists. The result
// is the command with an absolute first word: what runs does not depend on PATH.
func command(root image.Tree, files []release.ConfigFile, s definition.Settings) ([]string, error) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return nil, fault.New(fault.Invalid, "no command is set").Mend("write  command: [/usr/bin/program]")
	}
	l := lookup{root: root, files: files}
	if err := l.workDir(s); err != nil {
		return nil, err
	}
	name := s.Command[0]
	switch {
	case path.IsAbs(name):
		if err := l.executable(name); err != nil {
			return nil, err
		}
		return s.Command, nil
	case strings.Contains(name, "/"):
		return nil, fault.New(fault.Invalid, "the command %q is relative to a directory", name).
			Mend("write its absolute path, or its name alone to have it looked up in PATH")
	}
	dirs := defaultPath
	if v, ok := s.Env["PATH"]; ok {
		dirs = v
	}
	for dir := range strings.SplitSeq(dirs, ":") {
		at := path.Join("/", dir, name)
		if l.executable(at) == nil {
			return append([]string{at}, s.Command[1:]...), nil
		}
	}
	return nil, l.near(fault.New(fault.Invalid, "there is no program %q in the artifact", name).
		Detail("searched: "+dirs), name)
}

// lookup finds programs in what an instance will see.
type lookup struct {
	root  image.Tree
	files []release.ConfigFile
}

func (l lookup) executable(name string) error {
	for _, f := range l.files {
		if f.Path == name {
			return executableMode(name, f.Mode)
		}
	}
	at, err := l.root.Resolve(name)
	if err != nil {
		return l.near(fault.New(fault.Invalid, "there is no program %s in the artifact", name), path.Base(name))
	}
	e, _ := l.root.Lookup(at)
	if e.Type != image.File {
		return l.near(fault.New(fault.Invalid, "%s is not a program but a %s", name, e.Type), path.Base(name))
	}
	return executableMode(name, e.Mode)
}

func executableMode(name string, mode uint32) error {
	if mode&0o111 == 0 {
		return fault.New(fault.Invalid, "%s cannot be executed: its mode is %04o", name, mode).
			Mend("set  mode: \"0755\"  on the source that it comes from")
	}
	return nil
}

func (l lookup) workDir(s definition.Settings) error {
	for _, t := range s.Tmpfs {
		if s.WorkDir == t.Path {
			return nil
		}
	}
	if s.WorkDir == "" {
		return nil
	}
	at, err := l.root.Resolve(s.WorkDir)
	if err != nil {
		return fault.New(fault.Invalid, "the working directory %s is not in the artifact", s.WorkDir).
			Mend("choose another  workdir:, or put a file into it")
	}
	if e, _ := l.root.Lookup(at); e.Type != image.Dir {
		return fault.New(fault.Invalid, "the working directory %s is a %s", s.WorkDir, e.Type).Mend("choose another  workdir:")
	}
	return nil
}

// near adds the programs whose names are closest to what was asked for.
func (l lookup) near(f *fault.Error, name string) error {
	type program struct {
		path     string
		distance int
	}
	var found []program
	limit := max(2, len(name)/2)
	for _, e := range l.root.Entries {
		if e.Type != image.File || e.Mode&0o111 == 0 || strings.Contains(path.Base(e.Path), ".so") {
			continue
		}
		if d := fault.Edits(name, path.Base(e.Path), limit+1); d <= limit {
			found = append(found, program{"/" + e.Path, d})
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].distance < found[j].distance })
	var names []string
	for _, p := range found[:min(len(found), 4)] {
		names = append(names, p.path)
	}
	if len(names) == 0 {
		return f.Mend("add a source that brings it, or correct  command:")
	}
	return f.Detail("near:  "+strings.Join(names, ", ")).Mend("write  command: [%s, …]", names[0])
}
