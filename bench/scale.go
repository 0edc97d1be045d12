package main

import (
	"context"
	"strings"
)

// looks is how often a server at rest looks at all of its environments in a second.
const looks = 1.0 / 30

// scale runs the benchmarks of what grows: a canary of so many new instances beside as many
// old ones, decision by decision, and an engine with 1,000 environments at rest.
func scale(ctx context.Context, r *report, say func(string, ...any)) error {
	say("large environments, and many")
	out, err := goBench(ctx, "./internal/rollout", "Decide", "1x", "3")
	if err != nil {
		return err
	}
	of := map[string][2]metric{"10000": {decide10k, decide10kEach}, "100000": {decide100k, decide100kEach}}
	for _, f := range out {
		_, n, _ := strings.Cut(f[0], "/")
		n, _, _ = strings.Cut(n, "-")
		rows, wanted := of[n]
		if !wanted {
			continue
		}
		if err := r.addAll(f, map[string]metric{"ms/decision": rows[0], "ns/decision/instance": rows[1], "B/instance": instanceBytes}); err != nil {
			return err
		}
	}
	if out, err = goBench(ctx, "./internal/engine", "Idle", "10x", "3"); err != nil {
		return err
	}
	for _, f := range out {
		look, err := metricOf(f, "µs/look")
		if err != nil {
			return err
		}
		r.add(idleLook, look)
		r.add(idleShare, look*1000*looks/1e6*100)
		if err := r.addAll(f, map[string]metric{"B/environment": idleBytes}); err != nil {
			return err
		}
	}
	return nil
}

// addAll adds the figures of a benchmark's line, by their units.
func (r *report) addAll(fields []string, units map[string]metric) error {
	for unit, m := range units {
		v, err := metricOf(fields, unit)
		if err != nil {
			return err
		}
		r.add(m, v)
	}
	return nil
}
