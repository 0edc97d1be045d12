package definition

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// The longest duration and the largest size that a definition may ask for.
const (
	maxDuration = 24 * time.Hour
	maxSize     = 1 << 50 // 1 PiB
)

// parseDuration reads 500ms, 10s or 1m30s; false when it is not one of at most maxDuration.
func parseDuration(text string) (time.Duration, bool) {
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0 && d <= maxDuration
}

// sizeUnits are the units of a size in bytes, longest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// parseSize reads 64MiB or 1.5GB as bytes, rounded down; false when it is not one of 1 to maxSize.
func parseSize(text string) (int64, bool) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		r, ok := new(big.Rat).SetString(number)
		if !ok || len(number) > 32 {
			return 0, false
		}
		r.Mul(r, new(big.Rat).SetInt64(u.bytes))
		n := new(big.Int).Quo(r.Num(), r.Denom())
		if !n.IsInt64() {
			return 0, false
		}
		return n.Int64(), n.Int64() >= 1 && n.Int64() <= maxSize
	}
	return 0, false
}

// parseCPU reads 500m or 1.5 as thousandths of a CPU; false below 1 or above 1000 CPUs.
func parseCPU(text string) (int64, bool) {
	if milli, ok := strings.CutSuffix(text, "m"); ok {
		n, err := strconv.ParseInt(milli, 10, 64)
		return n, err == nil && n >= 1 && n <= 1_000_000
	}
	f, err := strconv.ParseFloat(text, 64)
	n := int64(math.Round(min(f, 1e6) * 1000))
	return n, err == nil && n >= 1 && n <= 1_000_000
}

// parseMode reads 0644 as octal permission bits.
func parseMode(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 8, 32)
	return uint32(n), err == nil && n <= 0o7777
}

// parseOwner reads "33:34" or "33", which means 33:33.
func parseOwner(text string) (uid, gid int, ok bool) {
	user, group, both := strings.Cut(text, ":")
	uid, err := strconv.Atoi(user)
	if err != nil {
		return 0, 0, false
	}
	if !both {
		return uid, uid, true
	}
	gid, err = strconv.Atoi(group)
	return uid, gid, err == nil
}
