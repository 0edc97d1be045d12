package debian

import (
	"slices"
	"strconv"
	"strings"
)

// alternatives decides every name that packages provide together: the one with
// the highest priority whose file is there, of equals the first by path. The
// links are those of update-alternatives(1), by way of /etc/alternatives.
func (a *assembly) alternatives() {
	byName := map[string]choice{}
	var names []string
	for _, c := range a.choices {
		if !a.present(c.Path) {
			continue
		}
		have, ok := byName[c.Name]
		if !ok {
			names = append(names, c.Name)
		}
		if !ok || better(c.Alternative, have.Alternative) {
			byName[c.Name] = c
		}
	}
	slices.Sort(names)
	for _, n := range names {
		c := byName[n]
		a.rule = c.rule
		a.choose(c.Alternative)
		for _, s := range c.Slaves {
			if a.present(s.Path) {
				a.choose(s)
			}
		}
	}
}

func better(a, b Alternative) bool {
	pa, _ := strconv.Atoi(a.Priority) // what is no number counts as 0
	pb, _ := strconv.Atoi(b.Priority)
	if pa != pb {
		return pa > pb
	}
	return strings.Compare(a.Path, b.Path) < 0
}

func (a *assembly) choose(c Alternative) {
	a.link(Link{Path: "etc/alternatives/" + c.Name, To: c.Path})
	a.link(Link{Path: usrPath(strings.TrimPrefix(c.Link, "/")), To: "/etc/alternatives/" + c.Name})
}
