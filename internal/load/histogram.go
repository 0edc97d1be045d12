package load

import (
	"math/bits"
	"time"
)

// subBits gives 64 buckets to every power of two: values are kept within 1/64.
const subBits = 6

// histogram counts durations in buckets whose width grows with the value, in
// constant space whatever the number of values.
type histogram struct {
	buckets [(64 - subBits + 1) << subBits]uint32
	n       uint64
	max     time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile gives the upper end of the bucket that holds the value of rank ⌈q·n⌉;
// 0 if there are no values.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.n) + 0.999999)
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if n > 0 && seen >= rank {
			return min(time.Duration(upperEnd(i)), h.max)
		}
	}
	return 0
}

// bucketOf: values below 64 have a bucket each; above, the six bits after the
// leading one choose among the 64 buckets of its power of two.
func bucketOf(v uint64) int {
	exp := max(bits.Len64(v)-subBits-1, 0)
	return exp<<subBits + int(v>>exp)
}

// upperEnd is the largest value of a bucket.
func upperEnd(i int) uint64 {
	exp := max(i>>subBits-1, 0)
	return uint64(i-exp<<subBits+1)<<exp - 1
}
