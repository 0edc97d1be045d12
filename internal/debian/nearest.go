package debian

import (
	"slices"
	"strings"
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
		switch d := edits(name, n, limit); {
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

// edits is the Levenshtein distance of two names, or something above limit.
func edits(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		best := i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
			best = min(best, row[j])
		}
		if best > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}
