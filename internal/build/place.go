package build

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// place makes the layer that puts entries over the tree below it, complete with
// parent directories. Paths are followed through the lower tree's symbolic links
// to directories: a file for /bin/x is at usr/bin/x in the layer where /bin is a
// link, so that an OCI runtime, which would replace the link, and a sealed tree
// agree. Parents keep the attributes they have below; missing ones are 0755, root's.
//
// from says of each entry of the tree which of entries it is; -1 for an added parent.
// It is nil when the tree is entries as they are.
func place(lower image.Tree, entries []image.Entry) (t image.Tree, from []int, err error) {
	if len(lower.Entries) == 0 && len(entries) > 0 && entries[0].Path == "." {
		t := image.Tree{Entries: entries} // complete already: a debian source, which comes first as a rule
		return t, nil, t.Validate()
	}
	p := &placing{lower: lower, at: make(map[string]int, len(entries)), dirs: map[string]string{}}
	p.out = make([]laid, 0, len(entries)+len(entries)/8)
	for _, i := range inOrder(entries) {
		e := entries[i]
		asked := e.Path
		at, err := p.place(e)
		if err != nil {
			return image.Tree{}, nil, err
		}
		if old, ok := p.find(at); ok && (old.Type == image.Dir) != (e.Type == image.Dir) {
			return image.Tree{}, nil, fault.New(fault.Invalid, "/%s is a %s here, but a %s was put there before", asked, e.Type, old.Type).
				Mend("choose another destination for one of them")
		}
		e.Path = at
		if err := p.addParents(at); err != nil {
			return image.Tree{}, nil, err
		}
		p.put(e, i)
	}
	if len(p.out) == 0 {
		p.put(image.Entry{Path: ".", Type: image.Dir, Mode: 0o755}, added)
	}
	return p.tree()
}

// added is where a parent comes from: from nowhere.
const added = -1

// laid is an entry of a layer and the index of the one that it was made from.
type laid struct {
	image.Entry
	from int
}

// inOrder gives the indexes of entries by path.
func inOrder(entries []image.Entry) []int {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	byPath := func(a, b int) int { return image.ComparePaths(entries[a].Path, entries[b].Path) }
	if !slices.IsSortedFunc(order, byPath) { // as a rule it is
		slices.SortStableFunc(order, byPath)
	}
	return order
}

// tree is the layer in the order of trees.
func (p *placing) tree() (image.Tree, []int, error) {
	slices.SortStableFunc(p.out, func(a, b laid) int { return image.ComparePaths(a.Path, b.Path) })
	t := image.Tree{Entries: make([]image.Entry, len(p.out))}
	from := make([]int, len(p.out))
	for i, e := range p.out {
		t.Entries[i], from[i] = e.Entry, e.from
	}
	return t, from, t.Validate()
}

// placing is a layer being made.
type placing struct {
	lower image.Tree
	out   []laid
	at    map[string]int    // in out, by path
	dirs  map[string]string // where the entries of a directory land
}

// place is where an entry lands in the lower tree.
func (p *placing) place(e image.Entry) (string, error) {
	dir, name := path.Split(e.Path)
	if in, ok := p.dirs[dir]; ok && e.Type != image.Dir {
		return in + name, nil
	}
	at, err := p.lower.Place(e.Path)
	if err != nil {
		return "", fault.New(fault.Invalid, "nothing can be put at /%s: %w", e.Path, err).
			Mend("choose another destination")
	}
	if dir != "" {
		p.dirs[dir] = at[:len(at)-len(name)]
	}
	if old, ok := p.lower.Lookup(at); ok && e.Type == image.Dir && old.Type == image.Symlink {
		real, err := p.lower.Resolve(at)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fault.New(fault.Invalid, "/%s cannot be a directory: it is a symbolic link to %s, where there is nothing", at, old.Link).
				Mend("choose another destination")
		}
		return real, err
	}
	return at, nil
}

// put adds an entry, or puts it in the place of the one that has its path.
func (p *placing) put(e image.Entry, from int) {
	if i, ok := p.at[e.Path]; ok {
		p.out[i] = laid{e, from}
		return
	}
	p.at[e.Path] = len(p.out)
	p.out = append(p.out, laid{e, from})
}

// find gives what is at a path, in the layer or below it.
func (p *placing) find(at string) (image.Entry, bool) {
	if i, ok := p.at[at]; ok {
		return p.out[i].Entry, true
	}
	if len(p.lower.Entries) == 0 {
		return image.Entry{}, false
	}
	return p.lower.Lookup(at)
}

// addParents adds the directories above a path, from the root down.
func (p *placing) addParents(at string) error {
	if at == "." {
		return nil
	}
	above := path.Dir(at)
	if i, ok := p.at[above]; ok {
		if e := p.out[i]; e.Type != image.Dir {
			return fault.New(fault.Invalid, "/%s cannot be both a %s and a directory", above, e.Type).
				Mend("choose another destination for one of them")
		}
		return nil
	}
	e, ok := p.lower.Lookup(above)
	if ok && e.Type != image.Dir {
		return fault.New(fault.Invalid, "/%s cannot be a directory: it is a %s", above, e.Type).
			Mend("choose another destination")
	}
	if !ok {
		e = image.Entry{Path: above, Type: image.Dir, Mode: 0o755}
	}
	if err := p.addParents(above); err != nil {
		return err
	}
	p.put(e, added)
	return nil
}
