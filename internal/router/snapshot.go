package router

import (
	"cmp"
	"net"
	"slices"
	"strings"
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

	groups []*group // by release, in the order of the table
	turns  spread   // over groups

	match   *rollout.Match // nil: none
	matched *group         // that match sends to; nil: none of its backends is there
	sticky  string         // cookie; empty: none
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

// arrange sorts the backends that may receive requests into groups.
func (s *service) arrange(in rollout.Service, backends map[string]*backend, counts map[string]*traffic) {
	byRelease := map[string]*group{}
	weights := map[*group][]uint64{}
	for _, b := range in.Backends {
		if !takes(in, b) {
			continue
		}
		g := byRelease[b.Release]
		if g == nil {
			g = &group{release: b.Release, traffic: counts[rollout.TrafficKey(in.Name, b.Release)]}
			byRelease[b.Release] = g
			s.groups = append(s.groups, g)
		}
		g.backends = append(g.backends, backends[b.ID])
		weights[g] = append(weights[g], uint64(b.Weight))
	}
	var all []uint64
	for _, g := range s.groups {
		g.seal(weights[g])
		all = append(all, g.weight)
	}
	if len(all) > 0 {
		s.turns.by(all)
	}
	if s.match, s.sticky = in.Match, in.Sticky; s.match != nil {
		s.matched = byRelease[s.match.Release]
	}
}

// takes says whether a backend receives requests: by its weight, or because Match
// sends some to its release.
func takes(svc rollout.Service, b rollout.Backend) bool {
	return b.Weight > 0 || svc.Match != nil && svc.Match.Release == b.Release
}

// take picks a backend for a request and counts it there: in the group that the
// request belongs to, else in one by weight, else in any with weight. Backends in
// tried are left out, ones that could not be reached lately come last. With stale,
// the service is of a snapshot that is no longer in force: look at the current one.
func (s *service) take(prefer *group, tried []*backend) (b *backend, g *group, stale bool) {
	if len(s.groups) == 0 {
		return nil, nil, false
	}
	if prefer != nil {
		for _, lastChoice := range []bool{false, true} {
			b, old := prefer.take(tried, lastChoice)
			if b != nil {
				return b, prefer, false
			}
			stale = stale || old
		}
		if stale {
			return nil, nil, true
		}
	}
	first := s.turns.next()
	for _, lastChoice := range []bool{false, true} {
		for i := range s.groups {
			g := s.groups[(first+i)%len(s.groups)]
			if g.weight == 0 {
				continue
			}
			b, old := g.take(tried, lastChoice)
			if b != nil {
				return b, g, false
			}
			stale = stale || old
		}
	}
	return nil, nil, stale
}
