package router

import (
	"cmp"
	"math/bits"
	"net"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// snapshot is the whole routing state at one moment. It never changes, except
// for the turns of its services.
type snapshot struct {
	sites    map[string]*site // by listen address
	replaced chan struct{}    // closed when another snapshot is in force
}

// site is everything that is routed on one listen address.
type site struct {
	hosts   map[string][]*service // exact lower-case host to services, longest path first
	anyHost []*service            // longest path first
}

// service is one routed component in one table.
type service struct {
	env      rollout.Key
	name     string
	host     string
	path     string // without a final slash: empty for /
	hold     time.Duration
	counters *counters

	backends []*backend // with a weight above 0
	upTo     []uint64   // running sums of their weights
	turn     atomic.Uint64
}

// newSnapshot arranges services by the address they are reached at.
func newSnapshot(services map[string][]*service) *snapshot {
	s := &snapshot{sites: map[string]*site{}, replaced: make(chan struct{})}
	for listen, list := range services {
		at := &site{hosts: map[string][]*service{}}
		for _, svc := range list {
			if svc.host == "" {
				at.anyHost = append(at.anyHost, svc)
			} else {
				at.hosts[svc.host] = append(at.hosts[svc.host], svc)
			}
		}
		longestFirst(at.anyHost)
		for _, same := range at.hosts {
			longestFirst(same)
		}
		s.sites[listen] = at
	}
	return s
}

func longestFirst(list []*service) {
	slices.SortFunc(list, func(a, b *service) int { return cmp.Compare(len(b.path), len(a.path)) })
}

// match finds the service for a request: its exact host before any host, then
// the longest path. It returns nil if there is none.
func (s *snapshot) match(listen, host, path string) *service {
	at := s.sites[listen]
	if at == nil {
		return nil
	}
	if len(at.hosts) > 0 {
		if svc := longest(at.hosts[hostOnly(host)], path); svc != nil {
			return svc
		}
	}
	return longest(at.anyHost, path)
}

func longest(list []*service, path string) *service {
	for _, svc := range list {
		if under(svc.path, path) {
			return svc
		}
	}
	return nil
}

// under reports whether path is prefix or lies below it. /api holds /api and
// /api/x, not /apix. A prefix has no final slash.
func under(prefix, path string) bool {
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// hostOnly takes the port and a final dot from a Host header and lowers its case.
func hostOnly(host string) string {
	if strings.HasPrefix(host, "[") || strings.Count(host, ":") == 1 {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(host, "]"), "["), ".")
	return strings.ToLower(host)
}

// addBackend adds a backend in table order.
func (s *service) addBackend(b *backend, weight int) {
	var sum uint64
	if n := len(s.upTo); n > 0 {
		sum = s.upTo[n-1]
	}
	s.backends = append(s.backends, b)
	s.upTo = append(s.upTo, sum+uint64(weight))
}

// take picks a backend by weight and counts the request there. Backends in tried
// are left out, ones that could not be reached lately come last. With stale, the
// service is of a snapshot that is no longer in force: look at the current one.
func (s *service) take(tried []*backend) (b *backend, stale bool) {
	if len(s.backends) == 0 {
		return nil, false
	}
	first := s.next()
	for _, lastChoice := range []bool{false, true} {
		for i := range s.backends {
			b := s.backends[(first+i)%len(s.backends)]
			if b.avoided() != lastChoice || slices.Contains(tried, b) {
				continue
			}
			if b.acquire() {
				return b, false
			}
			stale = true
		}
	}
	return nil, stale
}

// next gives the index whose turn it is. The turns are a Weyl sequence of the
// golden ratio (Knuth, TAOCP 3, 6.4: each new point falls into a longest gap), so
// any stretch of requests is spread by weight, without a lock.
func (s *service) next() int {
	if len(s.backends) == 1 {
		return 0
	}
	at, _ := bits.Mul64(s.turn.Add(0x9e3779b97f4a7c15), s.upTo[len(s.upTo)-1])
	return sort.Search(len(s.upTo), func(i int) bool { return at < s.upTo[i] })
}
