package debian

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// closure is a set of packages under way to being closed under Depends and
// Pre-Depends. It never goes back on a choice: of a dependency's alternatives the
// first that is already chosen holds, then the first that can be chosen without
// conflict. The outcome depends on the index and the set of roots alone.
type closure struct {
	x        *index
	exclude  map[string]bool
	chosen   map[string]*node
	provided map[string][]provision // of the chosen
	why      map[string]cause       // chosen package to who needed it; roots have none
	queue    []*node
}

type provision struct {
	by  *node
	rel relation
}

type cause struct {
	by    string
	needs string
}

// close returns the closure of the roots, sorted by name.
func (x *index) close(roots, exclude []string) ([]*node, error) {
	c := &closure{
		x: x, exclude: map[string]bool{}, chosen: map[string]*node{},
		provided: map[string][]provision{}, why: map[string]cause{},
	}
	if err := c.start(roots, exclude); err != nil {
		return nil, err
	}
	for len(c.queue) > 0 {
		n := c.queue[0]
		c.queue = c.queue[1:]
		for _, g := range n.deps {
			if err := c.satisfy(n, g); err != nil {
				return nil, err
			}
		}
	}
	out := make([]*node, 0, len(c.chosen))
	for _, n := range c.chosen {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// start chooses the roots, all before any dependency, so that they are what
// alternatives find already chosen. Every unknown name is reported.
func (c *closure) start(roots, exclude []string) error {
	var unknown fault.List
	for _, n := range exclude {
		c.exclude[n] = true
		if c.x.byName[n] == nil && len(c.x.providers[n]) == 0 {
			unknown = append(unknown, c.x.unknown(n).At("exclude"))
		}
	}
	roots = slices.Clone(roots)
	slices.Sort(roots)
	for _, n := range slices.Compact(roots) {
		cand := c.x.byName[n]
		if cand == nil {
			unknown = append(unknown, c.x.unknown(n))
			continue
		}
		node, err := c.x.read(cand)
		if err != nil {
			return err
		}
		if f := c.conflict(node); f != nil {
			return f
		}
		c.choose(node)
	}
	if len(unknown) > 0 {
		return unknown
	}
	return nil
}

// unknown is the fault for a name that no archive has.
func (x *index) unknown(name string) *fault.Error {
	f := fault.New(fault.NotFound, "there is no package %s for %s in the archive", name, x.arch)
	if by := x.providers[name]; len(by) > 0 {
		var names []string
		for _, p := range by {
			names = append(names, p.by.name)
		}
		names = slices.Compact(names)
		return f.Detail("it is virtual; provided by: "+strings.Join(names[:min(8, len(names))], ", ")).
			Mend("name one of these instead, e.g.  %s", names[0])
	}
	if near := x.nearest(name); len(near) > 0 {
		return f.Detail("nearest: "+strings.Join(near, ", ")).Mend("write  %s", near[0])
	}
	return f.Mend("look the name up with  apt-cache search %s", name)
}

func (c *closure) choose(n *node) {
	c.chosen[n.name] = n
	c.queue = append(c.queue, n)
	for _, r := range n.provides {
		c.provided[r.name] = append(c.provided[r.name], provision{n, r})
	}
}

// satisfy makes one dependency of n hold.
func (c *closure) satisfy(n *node, g group) error {
	for _, r := range g {
		if c.holds(r) {
			return nil
		}
	}
	var notes []string
	for _, r := range g {
		if c.exclude[r.name] {
			return nil // left out on purpose
		}
		pick, note, err := c.pick(r)
		if err != nil {
			return err
		}
		if pick != nil {
			c.why[pick.name] = cause{by: n.name, needs: g.String()}
			c.choose(pick)
			return nil
		}
		notes = append(notes, note...)
	}
	return c.unsatisfiable(n, g, notes)
}

// holds says whether a chosen package satisfies r.
func (c *closure) holds(r relation) bool {
	if n := c.chosen[r.name]; n != nil && c.fits(n.candidate, n.multiArch, r) {
		return true
	}
	for _, p := range c.provided[r.name] {
		if provides(p.rel, r) {
			return true
		}
	}
	return false
}

// fits says whether a real package satisfies r, version and architecture.
func (c *closure) fits(p *candidate, multiArch string, r relation) bool {
	if !r.holds(p.ver) {
		return false
	}
	switch r.arch {
	case "", "native", c.x.arch:
		return true
	case "any":
		return multiArch == "allowed" || multiArch == "foreign" || p.arch == "all"
	default:
		return false
	}
}

// provides says whether a provision satisfies r: a versioned relation needs a
// versioned provision (policy 7.5).
func provides(have, want relation) bool {
	if want.op == "" {
		return true
	}
	return have.op == "=" && want.holds(have.ver)
}

// pick finds a package for r that conflicts with nothing chosen: the real one
// first, then a provider, the most important first. Its notes say why not.
func (c *closure) pick(r relation) (*node, []string, error) {
	var notes []string
	if cand := c.x.byName[r.name]; cand != nil {
		n, err := c.x.read(cand)
		if err != nil {
			return nil, nil, err
		}
		switch f := c.conflict(n); {
		case !c.fits(cand, n.multiArch, r):
			notes = append(notes, fmt.Sprintf("%s: the archive has %s (%s)", r, cand.version, cand.arch))
		case c.chosen[n.name] != nil:
			notes = append(notes, fmt.Sprintf("%s: %s is chosen", r, n.version))
		case f != nil:
			notes = append(notes, fmt.Sprintf("%s: %s", r, f.What))
		default:
			return n, nil, nil
		}
	}
	n, more, err := c.pickProvider(r)
	notes = append(notes, more...)
	if len(notes) == 0 {
		notes = []string{fmt.Sprintf("%s: no archive has it", r)}
	}
	return n, notes, err
}

func (c *closure) pickProvider(r relation) (*node, []string, error) {
	var best *node
	var notes []string
	for _, p := range c.x.providers[r.name] {
		if !provides(p.rel, r) || c.exclude[p.by.name] {
			continue
		}
		n, err := c.x.read(p.by)
		if err != nil {
			return nil, nil, err
		}
		if f := c.conflict(n); f != nil {
			notes = append(notes, fmt.Sprintf("%s by %s: %s", r, n.name, f.What))
			continue
		}
		if best == nil || rank(n.priority) < rank(best.priority) {
			best = n
		}
	}
	return best, notes, nil
}

// rank orders the priorities of policy 2.5.
func rank(priority string) int {
	if i := slices.Index([]string{"required", "important", "standard", "optional"}, priority); i >= 0 {
		return i
	}
	return 4
}

// conflict returns the fault of choosing n beside what is chosen, or nil.
func (c *closure) conflict(n *node) *fault.Error {
	names := make([]string, 0, len(c.chosen))
	for name := range c.chosen {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		other := c.chosen[name]
		if r, ok := n.refuses(other); ok {
			return c.clash(n, other, r)
		}
		if r, ok := other.refuses(n); ok {
			return c.clash(other, n, r)
		}
	}
	return nil
}

// refuses says which Conflicts or Breaks of n meets other.
func (n *node) refuses(other *node) (relation, bool) {
	if n.name == other.name {
		return relation{}, false
	}
	for _, g := range n.against {
		for _, r := range g {
			if r.name == other.name && r.holds(other.ver) {
				return r, true
			}
			for _, p := range other.provides {
				if p.name == r.name && provides(p, r) {
					return r, true
				}
			}
		}
	}
	return relation{}, false
}

func (c *closure) clash(a, b *node, r relation) *fault.Error {
	return fault.New(fault.Invalid, "packages %s (%s) and %s (%s) cannot be together: %s conflicts with %s",
		a.name, a.version, b.name, b.version, a.name, r).
		Detail(c.chain(a.name), c.chain(b.name)).
		Mend("leave one of them out, under  packages:  or, when it is only a dependency, by  exclude:")
}

func (c *closure) unsatisfiable(n *node, g group, notes []string) error {
	return fault.New(fault.Invalid, "package %s (%s) needs %s, which cannot be had", n.name, n.version, g).
		Detail(notes...).Detail(c.chain(n.name)).
		Mend("if it is not needed at run time, write  exclude: [%s]", g[0].name)
}

// chain tells how a package came to be wanted, from a root on.
func (c *closure) chain(name string) string {
	links := []string{name}
	for len(links) < 64 {
		w, ok := c.why[name]
		if !ok {
			break
		}
		name = w.by
		links = append(links, name)
	}
	slices.Reverse(links)
	return "wanted: " + strings.Join(links, " -> ")
}
