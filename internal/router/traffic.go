package router

import (
	"sort"
	"sync/atomic"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// trafficKept is how long the counts of a release are kept after its last backend
// left the table.
const trafficKept = 15 * time.Minute

// traffic counts what the backends of one release answered. It is written by
// requests without a lock.
type traffic struct {
	service, release string
	left             time.Time // when the release left the table; zero: it is in it. Guarded by router.mu

	classes [6]atomic.Int64 // answers by status class; [0] is unused
	missing atomic.Int64    // requests that were never answered
	broken  atomic.Int64    // answers below 500 that were broken off, or that gRPC's own status calls a failure
	nanos   atomic.Int64    // sum of what is in latency
	latency []atomic.Int64  // by rollout.LatencyBounds, and one for the rest
}

func newTraffic(service, release string) *traffic {
	return &traffic{service: service, release: release, latency: make([]atomic.Int64, len(rollout.LatencyBounds)+1)}
}

// answered counts an answer whose header came after a time.
func (t *traffic) answered(status int, took time.Duration) {
	if class := status / 100; class >= 1 && class <= 5 {
		t.classes[class].Add(1)
	}
	t.nanos.Add(int64(took))
	t.latency[sort.Search(len(rollout.LatencyBounds), func(i int) bool { return took <= rollout.LatencyBounds[i] })].Add(1)
}

// count gives the numbers as they are. An answer is never counted as an error
// before it is counted as a request.
func (t *traffic) count() rollout.Traffic {
	out := rollout.Traffic{Latency: make([]int64, len(t.latency))}
	missing := t.missing.Load()
	out.Errors = missing + t.broken.Load() + t.classes[5].Load()
	out.Requests = missing
	for i := range t.latency {
		out.Latency[i] = t.latency[i].Load()
		out.Requests += out.Latency[i]
	}
	return out
}

// keepTraffic gives the next environment the counts of the one before: those of
// its releases, and for a while those of releases that left.
func (e *environment) keepTraffic(old *environment, now time.Time) {
	e.traffic = map[string]*traffic{}
	for _, svc := range e.table.Services {
		for i, b := range svc.Backends {
			if i > 0 && b.Release == svc.Backends[i-1].Release {
				continue
			}
			key := rollout.TrafficKey(svc.Name, b.Release)
			if t := old.traffic[key]; t != nil {
				t.left = time.Time{}
				e.traffic[key] = t
			} else if e.traffic[key] == nil {
				e.traffic[key] = newTraffic(svc.Name, b.Release)
			}
		}
	}
	for key, t := range old.traffic {
		if e.traffic[key] != nil {
			continue
		}
		if t.left.IsZero() {
			t.left = now
		}
		if now.Sub(t.left) < trafficKept {
			e.traffic[key] = t
		}
	}
}
