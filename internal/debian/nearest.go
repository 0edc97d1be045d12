package debian

import (
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// nearest returns up to three names that someone who wrote name may have meant:
// the fewest edits first, then names that contain it, the shortest first.
func (x *index) nearest(name string) []string {
	type match struct {
		name string
		cost int
	}
	limit := max(1, len(name)/4)
	var found []match
	consider := func(n string) {
		switch d := fault.Edits(name, n, limit+1); {
		case d <= limit:
			found = append(found, match{n, d})
		case len(name) > 2 && strings.Contains(n, name):
			found = append(found, match{n, 100 + len(n)})
		}
	}
	for n := range x.byName {
		consider(n)
	}
	slices.SortFunc(found, func(a, b match) int {
		if a.cost != b.cost {
			return a.cost - b.cost
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, m := range found[:min(3, len(found))] {
		out = append(out, m.name)
	}
	return out
}
