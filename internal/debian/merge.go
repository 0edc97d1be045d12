package debian

import (
	"fmt"
	"slices"
	"strings"

	"pault.ag/go/debian/version"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// placed is an entry with the package that it came from, or the rule that made it, and
// the rules that changed it since.
type placed struct {
	image.Entry
	from    *unpacked
	shipped string // path in from's entries
	rule    string // name; empty unless from is nil
	amended []string
}

// merge lays packages, sorted by name, into one tree, as dpkg would: what one
// ships below a directory that is another's symbolic link lands where the link
// leads; a file of two packages is an error unless it is the same or one package
// replaces the other. The outcome does not depend on an order of installation.
func merge(pkgs []*unpacked) (map[string]placed, error) {
	links := linkTree(pkgs)
	out := map[string]placed{}
	var clashes fault.List
	for _, u := range pkgs {
		for _, e := range u.Entries {
			p, err := links.Place(e.Path)
			if err == nil && e.Type == image.Dir {
				p, _, err = links.Follow(p)
			}
			if err != nil {
				return nil, fmt.Errorf("package %s: %w", u.Package, err)
			}
			now := placed{Entry: e, from: u, shipped: e.Path}
			now.Path = p
			have, ok := out[p]
			if !ok {
				out[p] = now
				continue
			}
			win, fits := meet(have, now)
			if !fits && len(clashes) < 20 {
				clashes = append(clashes, fault.New(fault.Invalid, "packages %s and %s both have /%s", have.from.Package, u.Package, p).
					Mend("leave one of them out"))
			}
			out[p] = win
		}
	}
	if len(clashes) > 0 {
		return nil, clashes
	}
	return out, nil
}

// linkTree holds the symbolic links of all packages, for paths that lead through
// them. A path that one package has as a link and another as a directory is a link.
func linkTree(pkgs []*unpacked) image.Tree {
	seen := map[string]bool{}
	var links []image.Entry
	for _, u := range pkgs {
		for _, e := range u.Entries {
			if e.Type == image.Symlink && !seen[e.Path] {
				seen[e.Path] = true
				links = append(links, e)
			}
		}
	}
	return image.Sorted(links)
}

// meet decides what stands at a path that two packages have, and whether they may.
func meet(a, b placed) (placed, bool) {
	switch {
	case a.Type == image.Dir && b.Type == image.Dir:
		// Most packages ship shared directories as 0755 root; the one that says
		// otherwise means it, and of several the first.
		if a.Mode == 0o755 && a.UID == 0 && a.GID == 0 {
			return b, true
		}
		return a, true
	case a.Type == b.Type && a.Digest == b.Digest && a.Link == b.Link && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID:
		return a, true
	case a.from.replaces(b.from) && a.Type != image.Dir:
		return a, true
	case b.from.replaces(a.from) && b.Type != image.Dir:
		return b, true
	default:
		return a, false
	}
}

// replaces says whether u may overwrite files of other (policy 7.6.1).
func (u *unpacked) replaces(other *unpacked) bool {
	groups, err := parseRelations(u.Control["Replaces"], "amd64") // no architecture is named in a binary package's
	if err != nil {
		return false
	}
	v, err := version.Parse(other.Version)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(groups, func(g group) bool {
		return slices.ContainsFunc(g, func(r relation) bool { return r.name == other.Package && r.holds(v) })
	})
}

// sortedPaths are the keys of a map of entries.
func sortedPaths(m map[string]placed) []string {
	out := make([]string, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}
