package build

import (
	"errors"
	"io/fs"
	"maps"
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
func place(lower image.Tree, entries []image.Entry) (image.Tree, error) {
	if len(lower.Entries) == 0 && len(entries) > 0 && entries[0].Path == "." {
		t := image.Tree{Entries: entries} // complete already: a debian source, which comes first as a rule
		return t, t.Validate()
	}
	out := map[string]image.Entry{}
	for _, e := range image.Sorted(entries).Entries {
		asked := e.Path
		at, err := placeOne(lower, e)
		if err != nil {
			return image.Tree{}, err
		}
		if old, ok := find(out, lower, at); ok && (old.Type == image.Dir) != (e.Type == image.Dir) {
			return image.Tree{}, fault.New(fault.Invalid, "/%s is a %s here, but a %s was put there before", asked, e.Type, old.Type).
				Mend("choose another destination for one of them")
		}
		e.Path = at
		out[at] = e
		if err := addParents(out, lower, at); err != nil {
			return image.Tree{}, err
		}
	}
	if len(out) == 0 {
		out["."] = image.Entry{Path: ".", Type: image.Dir, Mode: 0o755}
	}
	t := image.Sorted(slices.Collect(maps.Values(out)))
	return t, t.Validate()
}

// placeOne is where an entry lands in the lower tree.
func placeOne(lower image.Tree, e image.Entry) (string, error) {
	at, err := lower.Place(e.Path)
	if err != nil {
		return "", fault.New(fault.Invalid, "nothing can be put at /%s: %w", e.Path, err).
			Mend("choose another destination")
	}
	if old, ok := lower.Lookup(at); ok && e.Type == image.Dir && old.Type == image.Symlink {
		real, err := lower.Resolve(at)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fault.New(fault.Invalid, "/%s cannot be a directory: it is a symbolic link to %s, where there is nothing", at, old.Link).
				Mend("choose another destination")
		}
		return real, err
	}
	return at, nil
}

func find(out map[string]image.Entry, lower image.Tree, at string) (image.Entry, bool) {
	if e, ok := out[at]; ok {
		return e, true
	}
	return lower.Lookup(at)
}

func addParents(out map[string]image.Entry, lower image.Tree, at string) error {
	for at != "." {
		at = path.Dir(at)
		if e, ok := out[at]; ok {
			if e.Type != image.Dir {
				return fault.New(fault.Invalid, "/%s cannot be both a %s and a directory", at, e.Type).
					Mend("choose another destination for one of them")
			}
			return nil
		}
		e, ok := lower.Lookup(at)
		if ok && e.Type != image.Dir {
			return fault.New(fault.Invalid, "/%s cannot be a directory: it is a %s", at, e.Type).
				Mend("choose another destination")
		}
		if !ok {
			e = image.Entry{Path: at, Type: image.Dir, Mode: 0o755}
		}
		out[at] = e
	}
	return nil
}
