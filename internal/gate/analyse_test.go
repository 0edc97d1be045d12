package gate_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

var rewrite = flag.Bool("rewrite", false, "write what is said into testdata/analyse.txt, to be read and committed")

// bounds grow by a quarter, as those of the router do.
var bounds = func() (b []time.Duration) {
	for d := 500 * time.Microsecond; d < time.Minute; d += d / 4 {
		b = append(b, d.Round(10*time.Microsecond))
	}
	return b
}()

func TestFindings(t *testing.T) {
	const file = "testdata/analyse.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	var rule gate.Rule
	for line := range strings.SplitSeq(strings.TrimRight(string(want), "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&got, line)
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "rule":
			rule = readRule(t, words[1:])
		default:
			before, after, _ := strings.Cut(line, " | ")
			f := gate.Analyse(rule, readTraffic(t, before), readTraffic(t, after))
			fmt.Fprintf(&got, "    %s: %s\n", f.Verdict, f.What)
		}
	}
	if got.String() == string(want) {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("-want +got; if it is better: go test ./internal/gate -rewrite\n%s", cmp.Diff(string(want), got.String()))
}

func readRule(t *testing.T, words []string) gate.Rule {
	t.Helper()
	rule := gate.Rule{Bounds: bounds}
	scan(t, words[0], "%d", &rule.Requests)
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "errors":
			rule.Errors = value
		case "slower":
			rule.Slower = value
		case "quantile":
			scan(t, value, "%d", &rule.Quantile)
		}
	}
	return rule
}

func readTraffic(t *testing.T, text string) gate.Traffic {
	t.Helper()
	words := strings.Fields(text)[1:]
	tr := gate.Traffic{Latency: make([]int64, len(bounds)+1)}
	scan(t, words[0], "%d", &tr.Requests)
	scan(t, words[1], "%d", &tr.Errors)
	for _, w := range words[2:] {
		d, count, _ := strings.Cut(w, "*")
		took, err := time.ParseDuration(d)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		scan(t, count, "%d", &n)
		tr.Latency[class(took)] += n
	}
	return tr
}

func scan(t *testing.T, text, format string, to any) {
	t.Helper()
	if _, err := fmt.Sscanf(text, format, to); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func class(took time.Duration) int {
	for i, b := range bounds {
		if took <= b {
			return i
		}
	}
	return len(bounds)
}

// TestFalseAlarms: a release that is exactly at its limit, the worst that is still
// good, is looked at again and again and fails in at most one rollout of 100.
func TestFalseAlarms(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	count := func(name string, rule gate.Rule, answer func(new bool) (bool, time.Duration)) {
		rule.Requests, rule.Bounds = 1, bounds
		alarms := 0
		for range 500 {
			if play(rule, 4000, func(v gate.Verdict) bool { return v == gate.Fail }, answer) < 4000 {
				alarms++
			}
		}
		t.Logf("%s: %d of 500 rollouts failed", name, alarms)
		if alarms > 5 {
			t.Errorf("%s: %d of 500 rollouts failed", name, alarms)
		}
	}
	for _, share := range []float64{0.001, 0.01, 0.05} {
		count(fmt.Sprintf("errors at the limit of %v", share), gate.Rule{Errors: fmt.Sprint(100 * share)},
			func(new bool) (bool, time.Duration) { return new && r.Float64() < share, time.Millisecond })
	}
	count("times at the limit", gate.Rule{Slower: "1.5", Quantile: 950},
		func(new bool) (bool, time.Duration) { return false, took(r, new, 1.5) })
}

// took is how long an answer takes, the new release's by a factor longer.
func took(r *rand.Rand, new bool, factor float64) time.Duration {
	d := (5 + 20*r.ExpFloat64()) * float64(time.Millisecond)
	if new {
		d *= factor
	}
	return time.Duration(d)
}

// play sends requests to both releases, looks after each 20 as an engine does, and
// tells after how many a verdict came that ends it, or the most there are.
func play(rule gate.Rule, most int, ends func(gate.Verdict) bool, answer func(new bool) (failed bool, took time.Duration)) int {
	var sets [2]gate.Traffic
	for i := range sets {
		sets[i].Latency = make([]int64, len(bounds)+1)
	}
	for n := 1; n < most; n++ {
		for i := range sets {
			failed, took := answer(i == 0)
			sets[i].Requests++
			sets[i].Latency[class(took)]++
			if failed {
				sets[i].Errors++
			}
		}
		if n%20 == 0 && ends(gate.Analyse(rule, sets[0], sets[1]).Verdict) {
			return n
		}
	}
	return most
}

// TestBadReleasesAreFound: a release that errs or is slow fails, and soon. A few that
// are lucky within the required number of requests pass.
func TestBadReleasesAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name         string
		rule         gate.Rule
		within, luck int // requests; of 300 rollouts
		answer       func(new bool) (bool, time.Duration)
	}{
		{"5 % errors of 1 %", gate.Rule{Requests: 200, Errors: "1"}, 800, 3,
			func(new bool) (bool, time.Duration) { return new && r.Float64() < 0.05, time.Millisecond }},
		{"every answer is an error", gate.Rule{Requests: 200, Errors: "1"}, 20, 0,
			func(new bool) (bool, time.Duration) { return new, time.Millisecond }},
		{"twice as slow", gate.Rule{Requests: 500, Slower: "1.2", Quantile: 950}, 1500, 3,
			func(new bool) (bool, time.Duration) { return false, took(r, new, 2) }},
		{"five times as slow", gate.Rule{Requests: 200, Slower: "1.5", Quantile: 950}, 200, 0,
			func(new bool) (bool, time.Duration) { return false, took(r, new, 5) }},
	} {
		c.rule.Bounds = bounds
		lucky, slowest := 0, 0
		for range 300 {
			var last gate.Verdict
			n := play(c.rule, 4000, func(v gate.Verdict) bool { last = v; return v != gate.NotEnough }, c.answer)
			if slowest = max(slowest, n); last != gate.Fail {
				lucky++
			}
		}
		t.Logf("%s: %d of 300 passed, the last verdict took %d requests", c.name, lucky, slowest)
		if lucky > c.luck || slowest > c.within {
			t.Errorf("%s: %d of 300 passed, the last verdict took %d requests; want at most %d and %d", c.name, lucky, slowest, c.luck, c.within)
		}
	}
}

func traffic(most int64) *rapid.Generator[gate.Traffic] {
	return rapid.Custom(func(t *rapid.T) gate.Traffic {
		tr := gate.Traffic{Requests: rapid.Int64Range(0, most).Draw(t, "requests")}
		tr.Errors = rapid.Int64Range(0, tr.Requests).Draw(t, "errors")
		if rapid.Bool().Draw(t, "timed") {
			tr.Latency = make([]int64, len(bounds)+1)
			for left := tr.Requests; left > 0; {
				n := rapid.Int64Range(1, left).Draw(t, "n")
				tr.Latency[rapid.IntRange(0, len(bounds)).Draw(t, "class")] += n
				left -= n
			}
		}
		return tr
	})
}

func TestAnalyseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := gate.Rule{
			Requests: rapid.IntRange(0, 500).Draw(t, "requests"),
			Errors:   rapid.SampledFrom([]string{"", "0", "0.1", "1", "5", "100"}).Draw(t, "errors"),
			Slower:   rapid.SampledFrom([]string{"", "1", "1.5", "3"}).Draw(t, "slower"),
			Quantile: rapid.IntRange(1, 999).Draw(t, "quantile"),
			Bounds:   bounds,
		}
		new, old := traffic(2000).Draw(t, "new"), traffic(2000).Draw(t, "old")
		f := gate.Analyse(rule, new, old)
		if f != gate.Analyse(rule, new, old) {
			t.Fatal("the same is judged in two ways")
		}
		asked := rule.Errors != "" || rule.Slower != "" || rule.Requests > 0
		if f.Verdict == gate.Pass && asked && (new.Requests == 0 || new.Requests < int64(rule.Requests)) {
			t.Fatalf("silence passes: %v", f)
		}
		if f.What == "" && asked && f.Verdict != gate.Pass {
			t.Fatalf("%s without a reason", f.Verdict)
		}
		if f.Verdict == gate.Fail && new.Errors == 0 && rule.Slower == "" {
			t.Fatalf("fails without an error: %v", f)
		}
		if self := gate.Analyse(rule, new, new); self.Verdict == gate.Fail {
			t.Fatalf("worse than itself: %v", self)
		}
		worse := new
		worse.Errors = worse.Requests
		if w := gate.Analyse(rule, worse, old); f.Verdict == gate.Fail && w.Verdict == gate.Pass {
			t.Fatalf("more errors make it pass: %v, then %v", f, w)
		}
	})
}

func TestSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := traffic(1000).Draw(t, "a"), traffic(1000).Draw(t, "b")
		if a.Latency == nil || b.Latency == nil {
			return
		}
		both := gate.Traffic{Requests: a.Requests + b.Requests, Errors: a.Errors + b.Errors, Latency: make([]int64, len(a.Latency))}
		for i := range both.Latency {
			both.Latency[i] = a.Latency[i] + b.Latency[i]
		}
		if got := both.Since(a); cmp.Diff(got, b) != "" {
			t.Fatalf("%v since %v is %v", both, a, got)
		}
		if a.Requests > 0 { // the counter started anew, and has not come as far again
			anew := gate.Traffic{Requests: a.Requests - 1, Latency: make([]int64, len(a.Latency))}
			if got := anew.Since(a); cmp.Diff(got, anew) != "" {
				t.Fatalf("%v since %v is %v", anew, a, got)
			}
		}
		if none := both.Since(gate.Traffic{}); cmp.Diff(none, both) != "" {
			t.Fatalf("since nothing: %v", none)
		}
	})
}

func TestCombine(t *testing.T) {
	pass, fail, wait := gate.Finding{Verdict: gate.Pass, What: "p"}, gate.Finding{Verdict: gate.Fail, What: "f"}, gate.Finding{Verdict: gate.NotEnough, What: "w"}
	for _, c := range []struct {
		of   []gate.Finding
		want gate.Finding
	}{
		{nil, gate.Finding{Verdict: gate.Pass}},
		{[]gate.Finding{pass, wait, fail}, fail},
		{[]gate.Finding{pass, wait}, wait},
		{[]gate.Finding{pass, pass.Of("redis")}, gate.Finding{Verdict: gate.Pass, What: "p; redis: p"}},
	} {
		if got := gate.Combine(c.of...); got != c.want {
			t.Errorf("%v: %v, want %v", c.of, got, c.want)
		}
	}
}
