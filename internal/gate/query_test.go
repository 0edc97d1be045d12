package gate_test

import (
	"math"
	"strconv"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

func TestQuery(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		min, max string
		value    float64
		missing  bool
		want     gate.Finding
	}{
		{"", "0.1", 0.1, false, gate.Finding{Verdict: gate.Pass, What: "q is 0.1, at most 0.1"}},
		{"", "0.1", 0.10001, false, gate.Finding{Verdict: gate.Fail, What: "q is 0.10001, at most 0.1"}},
		{"1", "2", 1.5, false, gate.Finding{Verdict: gate.Pass, What: "q is 1.5, at least 1, at most 2"}},
		{"1", "2", 0.5, false, gate.Finding{Verdict: gate.Fail, What: "q is 0.5, at least 1, at most 2"}},
		{"-2", "", -3, false, gate.Finding{Verdict: gate.Fail, What: "q is -3, at least -2"}},
		{"", "1", inf, false, gate.Finding{Verdict: gate.Fail, What: "q is +Inf, at most 1"}},
		{"1", "", -inf, false, gate.Finding{Verdict: gate.Fail, What: "q is -Inf, at least 1"}},
		{"", "1", nan, false, gate.Finding{Verdict: gate.NotEnough, What: "q is not a number in Prometheus (NaN), as a share of nothing is"}},
		{"0", "1", 0, true, gate.Finding{Verdict: gate.NotEnough, What: "q has no value in Prometheus"}},
		{"", "1e3", 0, false, gate.Finding{Verdict: gate.NotEnough, What: `the bound of q cannot be read: "1e3"`}},
	} {
		if got := gate.AnalyseQuery(gate.Query{Name: "q", Min: c.min, Max: c.max}, c.value, !c.missing); got != c.want {
			t.Errorf("%v within %q and %q: %v, want %v", c.value, c.min, c.max, got, c.want)
		}
	}
}

func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"1", "0.1", "-2.50", "1e9", "0x10", "1/3", ".5", "5.", "", "٣", "1_000", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := gate.ParseDecimal(text)
		if err != nil {
			return
		}
		near, err := strconv.ParseFloat(text, 64)
		if got, _ := value.Float64(); err != nil || len(text) > 20 || got != near {
			t.Fatalf("%q is read as %v, by strconv as %v (%v)", text, value, near, err)
		}
	})
}
