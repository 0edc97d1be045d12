package gate

import "math"

// alarm is how much evidence a Fail needs: under a share that is just at its limit,
// what was seen has a chance of at most e^-alarm at each look. Analysis looks again
// and again, so this is far below the usual one in twenty.
const alarm = 8.0

// certainlyAbove tells whether k of n is too much for chance, were the true share
// limit (0 to 1). The bound is Chernoff's, P(X >= k) <= exp(-n D(k/n || limit)) with
// the relative entropy D: exact enough at every n, and on the safe side.
// See Hoeffding, Probability Inequalities for Sums of Bounded Random Variables, 1963.
func certainlyAbove(k, n int64, limit float64) bool {
	if n == 0 || float64(k) <= limit*float64(n) {
		return false
	}
	return float64(n)*entropy(float64(k)/float64(n), limit) >= alarm
}

// certainlyWorse tells whether k of n against k0 of n0 is too much for chance, were
// both of one share: half of the G statistic, which is the same measure for two.
func certainlyWorse(k, n, k0, n0 int64) bool {
	if n == 0 || n0 == 0 || float64(k)*float64(n0) <= float64(k0)*float64(n) {
		return false
	}
	both := float64(k+k0) / float64(n+n0)
	g := float64(n)*entropy(float64(k)/float64(n), both) + float64(n0)*entropy(float64(k0)/float64(n0), both)
	return g >= alarm
}

// atMost is the share that, by what was seen, the true one is below with 95 %.
func atMost(k, n int64) float64 {
	low, high, seen := float64(k)/float64(n), 1.0, float64(k)/float64(n)
	for range 50 {
		mid := (low + high) / 2
		if float64(n)*entropy(seen, mid) < math.Log(20) {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// entropy is D(p || q) of two coins, in nats.
func entropy(p, q float64) float64 { return part(p, q) + part(1-p, 1-q) }

func part(p, q float64) float64 {
	switch {
	case p <= 0:
		return 0
	case q <= 0:
		return math.Inf(1)
	}
	return p * math.Log(p/q)
}
