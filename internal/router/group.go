package router

import (
	"math/bits"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// group is the backends of one release within a service. It is what Match,
// Sticky and the counters of traffic speak of.
type group struct {
	release  string
	weight   uint64 // of all its backends together; 0: only requests that Match sends get here
	backends []*backend
	turns    spread // over backends
	traffic  *traffic
}

// seal fixes the turns once all backends are there. Where no backend has weight,
// all are alike.
func (g *group) seal(weights []uint64) {
	for _, w := range weights {
		g.weight += w
	}
	if g.weight == 0 {
		for i := range weights {
			weights[i] = 1
		}
	}
	g.turns.by(weights)
}

// take picks a backend and counts the request there. Backends in tried are left
// out, and those that could not be reached lately unless lastChoice asks for them.
func (g *group) take(tried []*backend, lastChoice bool) (b *backend, stale bool) {
	first := g.turns.next()
	for i := range g.backends {
		b := g.backends[(first+i)%len(g.backends)]
		if b.avoided() != lastChoice || slices.Contains(tried, b) {
			continue
		}
		if b.acquire() {
			return b, false
		}
		stale = true
	}
	return nil, stale
}

// spread hands out turns by weight, without a lock: over any stretch of as many
// turns as the reduced weights add up to, each place gets exactly its weight. Turn
// n is slot n·stride mod sum with a stride near the golden section of sum and prime
// to it, so shorter stretches are even too (Knuth, TAOCP 3, 6.4).
type spread struct {
	upTo   []uint64 // running sums of the weights: which slots are whose
	stride uint64
	turn   atomic.Uint64
}

// by sets the weights, of which one is above 0 where there are several.
func (s *spread) by(weights []uint64) {
	var common, sum uint64
	for _, w := range weights {
		common = gcd(common, w)
	}
	s.upTo = make([]uint64, len(weights))
	for i, w := range weights {
		sum += w / max(common, 1)
		s.upTo[i] = sum
	}
	for s.stride = max(1, sum*618/1000); gcd(s.stride, sum) != 1; {
		s.stride++
	}
}

func (s *spread) next() int {
	if len(s.upTo) == 1 {
		return 0
	}
	slot := mulmod(s.turn.Add(1)-1, s.stride, s.upTo[len(s.upTo)-1])
	i, _ := slices.BinarySearch(s.upTo, slot+1)
	return i
}

// mulmod gives a·b mod m.
func mulmod(a, b, m uint64) uint64 {
	hi, lo := bits.Mul64(a%m, b)
	return bits.Rem64(hi, lo, m)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// prefers gives the group that a request belongs to whatever the weights, and
// whether that is by Match; nil: none.
func (s *service) prefers(req *http.Request) (g *group, matched bool) {
	if s.matched != nil && s.matches(req) {
		return s.matched, true
	}
	if s.sticky == "" {
		return nil, false
	}
	for release := range cookies(req.Header, s.sticky) {
		for _, g := range s.groups {
			if g.release == release && g.weight > 0 {
				return g, false
			}
		}
	}
	return nil, false
}

// matches says whether any value of the header or cookie is the one asked for.
func (s *service) matches(req *http.Request) bool {
	if s.match.Header != "" {
		return slices.Contains(req.Header[s.match.Header], s.match.Value)
	}
	for v := range cookies(req.Header, s.match.Cookie) {
		if v == s.match.Value {
			return true
		}
	}
	return false
}

// cookies gives the values of the cookies of one name as they came (RFC 6265,
// 4.2.1), without quotes around them. Anything unreadable between is passed over.
func cookies(h http.Header, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range h["Cookie"] {
			for pair := range strings.SplitSeq(line, ";") {
				n, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if strings.TrimSpace(n) != name {
					continue
				}
				if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
					v = v[1 : len(v)-1]
				}
				if !yield(v) {
					return
				}
			}
		}
	}
}

// pin tells the client's browser to stay with the release that served it. A
// request that Match sent there is a look, and an answer 5xx no reason to stay.
func (x *exchange) pin(resp *http.Response) {
	if x.svc.sticky == "" || x.matched || resp.StatusCode >= 500 {
		return
	}
	for v := range cookies(x.in.Header, x.svc.sticky) {
		if v == x.group.release {
			return
		}
	}
	c := http.Cookie{
		Name: x.svc.sticky, Value: x.group.release, Path: x.svc.path, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.in.TLS != nil,
	}
	if c.Path == "" {
		c.Path = "/"
	}
	resp.Header.Add("Set-Cookie", c.String())
}
