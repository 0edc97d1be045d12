package debian

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// aliases are directories that became links to others: those that were merged into
// /usr, which Debian requires since bookworm (https://wiki.debian.org/UsrMerge), and
// /var/run and /var/lock. Packages still ship files by the old names; they are moved
// while unpacking. The links themselves are the rule usrmerge/1.
var aliases = []struct{ old, now string }{
	{"bin", "usr/bin"}, {"lib", "usr/lib"}, {"lib32", "usr/lib32"}, {"lib64", "usr/lib64"}, {"libo32", "usr/libo32"},
	{"libx32", "usr/libx32"}, {"sbin", "usr/sbin"}, {"var/run", "run"}, {"var/lock", "run/lock"},
}

// usrPath moves a path that is or leads through an alias.
func usrPath(p string) string {
	for _, a := range aliases {
		if rest, ok := strings.CutPrefix(p, a.old); ok && (rest == "" || rest[0] == '/') {
			return a.now + rest
		}
	}
	return p
}

// isAlias says whether a path is itself an alias.
func isAlias(p string) bool {
	return slices.ContainsFunc(aliases, func(a struct{ old, now string }) bool { return a.old == p })
}

// merged gives u its entries sorted by path, those of aliases moved.
func (d *dataReader) merged(u *unpacked) error {
	u.Shipped, u.Stripped = map[string]string{}, map[string]bool{}
	out := make([]image.Entry, 0, len(d.entries))
	at := map[string]int{}
	for _, e := range d.entries {
		shipped := e.Path
		e.Path = usrPath(shipped)
		if e.Type == image.Symlink && isAlias(shipped) {
			// base-files of trixie ships the links themselves.
			if pointsTo(image.Entry{Path: shipped, Link: e.Link}) != e.Path {
				return fmt.Errorf("member /%s is a link to %s instead of %s", shipped, clip(e.Link), e.Path)
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
			if e.Path != shipped {
				u.Shipped[e.Path] = shipped
			}
			if d.setID[shipped] {
				u.Stripped[e.Path] = true
			}
			continue
		}
		if err := d.meet(&out[i], e); err != nil {
			return err
		}
	}
	for _, e := range out {
		for up := path.Dir(e.Path); up != "."; up = path.Dir(up) {
			if i, ok := at[up]; ok && out[i].Type != image.Dir {
				return fmt.Errorf("member %s lies below %s, which is no directory", clip(e.Path), clip(up))
			}
		}
	}
	slices.SortFunc(out, func(a, b image.Entry) int { return strings.Compare(a.Path, b.Path) })
	u.Entries = out
	return nil
}

// meet decides whether what has two names in one package may stand at one place.
func (d *dataReader) meet(have *image.Entry, e image.Entry) error {
	if have.Type == image.Dir && e.Type == image.Dir || have.Type == e.Type && have.Digest == e.Digest && have.Link == e.Link {
		return nil
	}
	return fmt.Errorf("two different members meet at one place, /%s, once /bin, /lib and their like are links", e.Path)
}

// pointsTo is where a symbolic link leads by its text alone, aliases moved.
func pointsTo(e image.Entry) string {
	target := e.Link
	if !strings.HasPrefix(target, "/") {
		target = path.Join("/", path.Dir(e.Path), target)
	}
	return usrPath(strings.TrimPrefix(path.Clean(target), "/"))
}
