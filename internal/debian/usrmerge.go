package debian

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// merged directories live in /usr; the root has links to them. Debian requires
// it since bookworm (https://wiki.debian.org/UsrMerge). Packages of bookworm still
// ship files outside /usr, which are moved while unpacking; the links are the rule
// usrmerge/1.
var mergedDirs = []string{"bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"}

// usrPath moves a path below /usr if its directory is merged.
func usrPath(p string) string {
	top, _, _ := strings.Cut(p, "/")
	if slices.Contains(mergedDirs, top) {
		return "usr/" + p
	}
	return p
}

// merged returns the entries sorted by path, those of merged directories moved.
func (d *dataReader) merged() ([]image.Entry, error) {
	out := make([]image.Entry, 0, len(d.entries))
	at := map[string]int{}
	for _, e := range d.entries {
		shipped := e.Path
		e.Path = usrPath(shipped)
		if e.Type == image.Symlink && e.Path != shipped && !strings.Contains(shipped, "/") {
			// base-files of trixie ships the links themselves.
			if target := strings.TrimPrefix(e.Link, "/"); target != e.Path {
				return nil, fmt.Errorf("member /%s is a link to %s instead of %s", shipped, clip(e.Link), e.Path)
			}
			continue
		}
		if e.Type == image.Symlink && pointsTo(e) == e.Path {
			continue // a compatibility link such as /usr/bin/touch -> /bin/touch
		}
		i, twice := at[e.Path]
		if !twice {
			at[e.Path] = len(out)
			out = append(out, e)
			continue
		}
		if err := d.meet(&out[i], e); err != nil {
			return nil, err
		}
	}
	for _, e := range out {
		for up := path.Dir(e.Path); up != "."; up = path.Dir(up) {
			if i, ok := at[up]; ok && out[i].Type != image.Dir {
				return nil, fmt.Errorf("member %s lies below %s, which is no directory", clip(e.Path), clip(up))
			}
		}
	}
	slices.SortFunc(out, func(a, b image.Entry) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// meet decides what stands where /x and /usr/x of one package meet.
func (d *dataReader) meet(have *image.Entry, e image.Entry) error {
	if have.Type == image.Dir && e.Type == image.Dir || have.Type == e.Type && have.Digest == e.Digest && have.Link == e.Link {
		return nil
	}
	return fmt.Errorf("members /%s and /%s are different and meet at one place", strings.TrimPrefix(e.Path, "usr/"), e.Path)
}

// pointsTo is where a symbolic link leads, after usrmerge, by its text alone.
func pointsTo(e image.Entry) string {
	target := e.Link
	if !strings.HasPrefix(target, "/") {
		target = path.Join("/", path.Dir(e.Path), target)
	}
	return usrPath(strings.TrimPrefix(path.Clean(target), "/"))
}
