package gate

import (
	"fmt"
	"math"
	"strconv"
)

// Query is the bounds of one value of Prometheus. See release.Query.
type Query struct {
	Name string
	Min  string // decimal; empty: no bound
	Max  string // decimal; empty: no bound
}

// AnalyseQuery judges a query's value. A value that is missing is NotEnough, and so is
// NaN, which Prometheus gives for a share of nothing. An infinite value, such as that
// of a rate divided by zero, is a value.
func AnalyseQuery(q Query, value float64, found bool) Finding {
	switch {
	case !found:
		return Finding{NotEnough, q.Name + " has no value in Prometheus"}
	case math.IsNaN(value):
		return Finding{NotEnough, q.Name + " is not a number in Prometheus (NaN), as a share of nothing is"}
	}
	seen := q.Name + " is " + strconv.FormatFloat(value, 'g', 6, 64)
	verdict := Pass
	for _, b := range []struct {
		text, name string
		beyond     func(bound float64) bool
	}{
		{q.Min, "least", func(bound float64) bool { return value < bound }},
		{q.Max, "most", func(bound float64) bool { return value > bound }},
	} {
		if b.text == "" {
			continue
		}
		if _, err := ParseDecimal(b.text); err != nil {
			return Finding{NotEnough, fmt.Sprintf("the bound of %s cannot be read: %q", q.Name, b.text)}
		}
		// Both sides are rounded to the same float, so 0.1 is not above "0.1".
		bound, err := strconv.ParseFloat(b.text, 64)
		if err != nil || b.beyond(bound) {
			verdict = Fail
		}
		seen += fmt.Sprintf(", at %s %s", b.name, b.text)
	}
	return Finding{verdict, seen}
}
