package gate

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Rule is what the new release's traffic has to keep to. See release.Analysis.
type Rule struct {
	Requests int             // of the new release that there have to be before it can pass
	Errors   string          // most share of errors, a decimal percentage; empty: not looked at
	Slower   string          // most that the quantile may be of the old release's, a decimal factor; empty: not looked at
	Quantile int             // per mille, 1 to 999
	Bounds   []time.Duration // of the classes of Traffic.Latency, growing
}

// Analyse compares what the new release answered with what the old one did. The
// old's may be of another time, such as the hour before the switch.
//
//   - Pass: there were enough requests, and what was measured is within the limits.
//     How many are enough is the rule's word: a pass of few requests tells which
//     share of errors they would not have shown.
//   - Fail: a limit is exceeded by more than chance explains, see certain.go. Errors
//     fail before there are enough requests, once no number of good answers can
//     bring the share at the required number below the limit.
//   - NotEnough: too few requests, nothing of the old to compare with, no latencies;
//     a limit that is exceeded by so little that chance explains it; or an old
//     release that errs too, and not certainly less: then the cause may be outside.
//
// Times are judged once there are enough requests, as the first answers of a new
// instance are slow. They are known by class: "slower" counts answers that are slower for certain, so
// a limit on times may be exceeded by up to the width of a class.
func Analyse(rule Rule, new, old Traffic) Finding {
	var findings []Finding
	if rule.Errors != "" {
		findings = append(findings, rule.errors(new, old))
	}
	if rule.Slower != "" {
		findings = append(findings, rule.times(new, old))
	}
	switch {
	case new.Requests < int64(rule.Requests) || new.Requests == 0 && len(findings) > 0:
		findings = append([]Finding{rule.few(new)}, findings...)
	case len(findings) == 0 && rule.Requests > 0:
		findings = []Finding{{Pass, fmt.Sprintf("%d requests have reached the new release", new.Requests)}}
	}
	return Combine(findings...)
}

// few tells of too few requests.
func (r Rule) few(new Traffic) Finding {
	if new.Requests == 0 {
		return Finding{NotEnough, fmt.Sprintf("no request has reached the new release, %d are needed", max(r.Requests, 1))}
	}
	return Finding{NotEnough, fmt.Sprintf("%d of the %d requests that are needed have reached the new release, %d of them failed",
		new.Requests, r.Requests, new.Errors)}
}

// errors judges the share of errors.
func (r Rule) errors(new, old Traffic) Finding {
	limit, err := ParseDecimal(r.Errors)
	if err != nil {
		return Finding{NotEnough, fmt.Sprintf("the limit of errors cannot be read: %q", r.Errors)}
	}
	limit.Quo(limit, big.NewRat(100, 1))
	if new.Requests == 0 {
		return Finding{Pass, ""} // few tells of it
	}
	seen := fmt.Sprintf("%d of %d requests failed (%s, the limit is %s %%)", new.Errors, new.Requests, percent(new.Errors, new.Requests), r.Errors)
	if !above(new.Errors, max(new.Requests, int64(r.Requests)), limit) {
		return Finding{Pass, fmt.Sprintf("%s; by so many the true share is below %.2g %%", seen, 100*atMost(new.Errors, new.Requests))}
	}
	share, _ := limit.Float64()
	switch {
	case !certainlyAbove(new.Errors, new.Requests, share):
		return Finding{NotEnough, seen + ": too few to tell a bad release from bad luck"}
	case above(old.Errors, old.Requests, limit) && !certainlyWorse(new.Errors, new.Requests, old.Errors, old.Requests):
		return Finding{NotEnough, fmt.Sprintf("%s, and of the old release %d of %d (%s): the cause may be outside both",
			seen, old.Errors, old.Requests, percent(old.Errors, old.Requests))}
	}
	return Finding{Fail, seen + r.beside(old)}
}

// beside tells how the old release fared.
func (r Rule) beside(old Traffic) string {
	if old.Requests == 0 {
		return ""
	}
	return fmt.Sprintf(", of the old release %d of %d (%s)", old.Errors, old.Requests, percent(old.Errors, old.Requests))
}

// times judges the quantile of the times. That the new's quantile is at most Slower
// times the old's says: of the new no greater share than the quantile leaves is slower than
// the limit. So it is again shares that are judged, against the declared one and
// against the share of the old that is above the old's quantile.
func (r Rule) times(new, old Traffic) Finding {
	factor, err := ParseDecimal(r.Slower)
	left := 1000 - r.Quantile // per mille of answers that may be slower
	switch {
	case err != nil || left < 1 || left > 999:
		return Finding{NotEnough, fmt.Sprintf("the limit of times cannot be read: %q of the quantile %d", r.Slower, r.Quantile)}
	case new.Requests < max(int64(r.Requests), 1):
		return Finding{Pass, ""} // few tells of it
	case len(new.Latency) != len(r.Bounds)+1 || new.answered() == 0:
		return Finding{NotEnough, "no times of the new release were measured"}
	case len(old.Latency) != len(r.Bounds)+1 || old.answered() == 0:
		return Finding{NotEnough, "there are no times of the old release to compare with"}
	}
	if need := int64(1000+left-1) / int64(left); min(new.answered(), old.answered()) < need {
		return Finding{NotEnough, fmt.Sprintf("%s needs %d answers of each, there are %d of the new release and %d of the old",
			r.name(), need, new.answered(), old.answered())}
	}
	at := old.class(r.Quantile)
	if at == len(r.Bounds) {
		return Finding{NotEnough, fmt.Sprintf("%s of the old release is above %s, beyond what is measured", r.name(), r.Bounds[at-1])}
	}
	return r.compare(new, old, at, scale(r.Bounds[at], factor))
}

// compare judges the new's times against a limit, with the old's quantile in class at.
func (r Rule) compare(new, old Traffic, at int, limit time.Duration) Finding {
	slow, all := new.slower(r.Bounds, limit), new.answered()
	oldSlow, oldAll := sum(old.Latency[at+1:]), old.answered()
	left := float64(1000-r.Quantile) / 1000
	bound := func(class int) string {
		if class == len(r.Bounds) {
			return "more than " + short(r.Bounds[class-1])
		}
		return "at most " + short(r.Bounds[class])
	}
	seen := fmt.Sprintf("%s of %d answers is %s, of the old release's %d %s (the limit is %s times)",
		r.name(), all, bound(new.class(r.Quantile)), oldAll, bound(at), r.Slower)
	switch {
	case limit > r.Bounds[len(r.Bounds)-1] && new.class(r.Quantile) == len(r.Bounds):
		return Finding{NotEnough, seen + ": both are beyond what is measured"}
	case slow*1000 <= all*int64(1000-r.Quantile):
		return Finding{Pass, seen}
	case certainlyAbove(slow, all, left) && certainlyWorse(slow, all, oldSlow, oldAll):
		return Finding{Fail, fmt.Sprintf("%s; %s of them took longer than %s", seen, percent(slow, all), short(limit))}
	}
	return Finding{NotEnough, seen + ": too few to tell a slow release from bad luck"}
}

// name of the quantile in words, such as "p95" or "p99.9".
func (r Rule) name() string {
	return "p" + strconv.FormatFloat(float64(r.Quantile)/10, 'f', -1, 64)
}

// above tells exactly whether k of n is more than limit. Of none, nothing is.
func above(k, n int64, limit *big.Rat) bool {
	return n > 0 && big.NewRat(k, n).Cmp(limit) > 0
}

// scale is d times a factor, rounded down, and an hour at most.
func scale(d time.Duration, factor *big.Rat) time.Duration {
	product := new(big.Rat).Mul(big.NewRat(int64(d), 1), factor)
	if product.Cmp(big.NewRat(int64(time.Hour), 1)) > 0 {
		return time.Hour
	}
	return time.Duration(new(big.Int).Quo(product.Num(), product.Denom()).Int64())
}

func percent(k, n int64) string {
	share, digits := 100*float64(k)/float64(n), 2
	if share < 0.1 {
		digits = 5
	}
	text := strconv.FormatFloat(share, 'f', digits, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " %"
}

// short is a duration with three digits.
func short(d time.Duration) string {
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if d < unit*1000 {
			return d.Round(unit).String()
		}
	}
	return d.String()
}
