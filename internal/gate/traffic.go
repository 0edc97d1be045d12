package gate

import "time"

// Traffic is what was answered within some time. Its fields are those of
// rollout.Traffic, which converts to it.
type Traffic struct {
	Requests int64
	Errors   int64   // answers 5xx, broken off or never given
	Latency  []int64 // answers by time to their header: one count for each bound, and one for the rest
}

// Since is what was counted between base and t, two readings of one counter. A
// counter that shows less than before started anew: then all it shows came since.
func (t Traffic) Since(base Traffic) Traffic {
	if t.Requests < base.Requests || t.Errors < base.Errors {
		return t
	}
	d := Traffic{Requests: t.Requests - base.Requests, Errors: t.Errors - base.Errors, Latency: make([]int64, len(t.Latency))}
	for i, n := range t.Latency {
		if i < len(base.Latency) {
			n -= base.Latency[i]
		}
		if n < 0 {
			return t
		}
		d.Latency[i] = n
	}
	return d
}

// answered is how many answers have a latency.
func (t Traffic) answered() int64 { return sum(t.Latency) }

// class is the index of the class that holds the quantile, per mille, of the
// answers: at least that share of them is in it and those before it.
func (t Traffic) class(perMille int) int {
	all, seen := t.answered(), int64(0)
	for i, n := range t.Latency {
		seen += n
		if seen*1000 >= all*int64(perMille) {
			return i
		}
	}
	return len(t.Latency) - 1
}

// slower is how many answers were certainly slower than limit: those of the classes
// that begin there or later.
func (t Traffic) slower(bounds []time.Duration, limit time.Duration) int64 {
	for i, bound := range bounds {
		if bound >= limit {
			return sum(t.Latency[i+1:])
		}
	}
	return 0
}

func sum(counts []int64) int64 {
	var s int64
	for _, n := range counts {
		s += n
	}
	return s
}
