package debian

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"pault.ag/go/debian/version"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// index holds the packages of all archives of a source for one architecture: of
// every name the highest version, and who provides which virtual name.
type index struct {
	arch      string
	byName    map[string]*candidate
	providers map[string][]provider // sorted by package name once sealed
}

// candidate is the one version of a package that may be installed.
type candidate struct {
	name, version, arch string
	ver                 version.Version
	archive             int    // index in Source.Archives
	text                string // its stanza
}

// provider is one package that provides a virtual name.
type provider struct {
	by  *candidate
	rel relation // rel.op is "=" when the provision has a version, else empty
}

func newIndex(arch string) *index {
	return &index{arch: arch, byName: map[string]*candidate{}, providers: map[string][]provider{}}
}

// add reads one Packages file. Candidates keep slices of text.
func (x *index) add(text string, archive int) error {
	var buf stanza
	for {
		s, rest, err := nextStanza(text, buf)
		if err != nil {
			return err
		}
		if len(s) == 0 {
			return nil
		}
		buf = s
		if err := x.addStanza(s, text[:len(text)-len(rest)], archive); err != nil {
			return err
		}
		text = rest
	}
}

func (x *index) addStanza(s stanza, text string, archive int) error {
	c := &candidate{name: s.get("Package"), version: s.get("Version"), arch: s.get("Architecture"), archive: archive, text: text}
	if !validName(c.name) {
		return fmt.Errorf("%s is not a package name", clip(c.name))
	}
	if c.arch != x.arch && c.arch != "all" {
		return nil
	}
	old := x.byName[c.name]
	if old != nil && old.version == c.version {
		return nil // the same version in two archives: the first one gives it
	}
	v, err := version.Parse(c.version)
	if err != nil {
		return fmt.Errorf("package %s: version %s: %w", c.name, clip(c.version), err)
	}
	c.ver = v
	if old == nil || version.Compare(c.ver, old.ver) > 0 {
		x.byName[c.name] = c
	}
	return nil
}

// seal gathers the virtual packages once all files are read.
func (x *index) seal() error {
	var buf stanza
	for _, c := range x.byName {
		if !strings.Contains(c.text, "\nProvides:") {
			continue // most have none, and scanning is faster than parsing
		}
		s, _, err := nextStanza(c.text, buf)
		if err != nil {
			return err
		}
		buf = s
		groups, err := parseRelations(s.get("Provides"), x.arch)
		if err != nil {
			return fmt.Errorf("package %s: Provides: %w", c.name, err)
		}
		for _, g := range groups {
			for _, r := range g {
				x.providers[r.name] = append(x.providers[r.name], provider{c, r})
			}
		}
	}
	for _, ps := range x.providers {
		slices.SortStableFunc(ps, func(a, b provider) int { return strings.Compare(a.by.name, b.by.name) })
	}
	return nil
}

// node is a candidate with its fields read.
type node struct {
	*candidate
	multiArch string
	priority  string
	essential bool
	deps      []group // Pre-Depends, then Depends
	against   []group // Conflicts and Breaks, one relation each
	provides  []relation
	path      string
	digest    digest.Digest
	size      int64
}

// maxDeb bounds one package file; Debian's largest have a little over 1 GB.
const maxDeb = 4 << 30

func (x *index) read(c *candidate) (*node, error) {
	s, _, err := nextStanza(c.text, nil)
	if err != nil {
		return nil, err
	}
	n := &node{candidate: c, multiArch: s.get("Multi-Arch"), priority: s.get("Priority"), essential: s.get("Essential") == "yes"}
	for _, f := range []struct {
		name string
		to   *[]group
	}{{"Pre-Depends", &n.deps}, {"Depends", &n.deps}, {"Conflicts", &n.against}, {"Breaks", &n.against}} {
		groups, err := parseRelations(s.get(f.name), x.arch)
		if err != nil {
			return nil, fault.New(fault.Refused, "package %s: %s: %w", c.name, f.name, err)
		}
		*f.to = append(*f.to, groups...)
	}
	provides, err := parseRelations(s.get("Provides"), x.arch)
	if err != nil {
		return nil, fault.New(fault.Refused, "package %s: Provides: %w", c.name, err)
	}
	for _, g := range provides {
		n.provides = append(n.provides, g...)
	}
	return n, n.readFile(s)
}

func (n *node) readFile(s stanza) error {
	n.path = s.get("Filename")
	n.digest = digest.NewDigestFromEncoded(digest.SHA256, s.get("SHA256"))
	var err error
	n.size, err = strconv.ParseInt(s.get("Size"), 10, 64)
	switch {
	case err != nil || n.size <= 0 || n.size > maxDeb:
		return fault.New(fault.Refused, "package %s: Size %s is not possible", n.name, clip(s.get("Size")))
	case n.digest.Validate() != nil:
		return fault.New(fault.Refused, "package %s has no SHA256 in the index", n.name)
	case !safePath(n.path):
		return fault.New(fault.Refused, "package %s: Filename %s leaves the archive", n.name, clip(n.path))
	}
	return nil
}

// safePath says whether p is clean, relative and stays below where it starts.
func safePath(p string) bool {
	return p != "" && p != "." && path.Clean(p) == p && p[0] != '/' && p != ".." && !strings.HasPrefix(p, "../")
}
