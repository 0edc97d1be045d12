package debian

import (
	"fmt"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// relation is one alternative of a dependency, e.g. libc6:any (>= 2.36).
type relation struct {
	name string
	arch string // qualifier: "", "any", "native" or an architecture
	op   string // "", "<<", "<=", "=", ">=", ">>"
	ver  version.Version
	num  string // ver as written
}

// group is alternatives of which one must hold.
type group []relation

// maxRelations bounds one field; the largest metapackages have a few hundred.
const maxRelations = 8192

// parseRelations reads the value of a Depends-like field for an architecture.
func parseRelations(value, arch string) ([]group, error) {
	if value == "" {
		return nil, nil
	}
	if len(value) > 1<<20 || strings.IndexByte(value, 0) >= 0 {
		return nil, fmt.Errorf("a dependency field of %d bytes is malformed or too long", len(value))
	}
	host, err := dependency.ParseArch(arch)
	if err != nil {
		return nil, fmt.Errorf("architecture %q: %w", arch, err)
	}
	dep, err := dependency.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("dependencies %s: %w", clip(value), err)
	}
	if len(dep.Relations) > maxRelations {
		return nil, fmt.Errorf("more than %d dependencies", maxRelations)
	}
	var out []group
	for _, r := range dep.Relations {
		g, err := alternatives(r.Possibilities, host)
		if err != nil {
			return nil, err
		}
		if len(g) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

func alternatives(ps []dependency.Possibility, host *dependency.Arch) (group, error) {
	var g group
	for _, p := range ps {
		if p.Substvar || !p.Architectures.Matches(host) {
			continue
		}
		if !validName(p.Name) {
			return nil, fmt.Errorf("%s is not a package name", clip(p.Name))
		}
		r := relation{name: p.Name}
		if p.Arch != nil {
			r.arch = p.Arch.String()
		}
		if p.Version != nil {
			v, err := version.Parse(p.Version.Number)
			if err != nil {
				return nil, fmt.Errorf("version %s of %s: %w", clip(p.Version.Number), p.Name, err)
			}
			r.op, r.ver, r.num = p.Version.Operator, v, strings.TrimSpace(p.Version.Number)
		}
		g = append(g, r)
	}
	return g, nil
}

// holds says whether a version satisfies the relation's operator.
func (r relation) holds(v version.Version) bool {
	c := version.Compare(v, r.ver)
	switch r.op {
	case "":
		return true
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	default:
		return false
	}
}

func (r relation) String() string {
	s := r.name
	if r.arch != "" {
		s += ":" + r.arch
	}
	if r.op != "" {
		s += " (" + r.op + " " + r.num + ")"
	}
	return s
}

func (g group) String() string {
	parts := make([]string, len(g))
	for i, r := range g {
		parts[i] = r.String()
	}
	return strings.Join(parts, " | ")
}
