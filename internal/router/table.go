package router

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Limits of a table, far above what is meant to be used.
const (
	maxServices = 1000
	maxBackends = 10000
	maxWeight   = 1_000_000
	maxWait     = time.Hour // of Hold and Drain
	maxName     = 253
	maxMatch    = 1000 // bytes of a Match's value
)

// normal returns a checked copy of a table in its one spelling: lower-case
// hosts, paths without a final slash, services and backends sorted. Everything
// wrong with it is in one Invalid fault.
func normal(env rollout.Key, in rollout.Table) (rollout.Table, error) {
	c := checker{}
	c.name("application", env.App)
	c.name("environment", env.Env)
	c.need(in.Generation >= 1, "generation %d is not above 0", in.Generation)
	out := rollout.Table{Generation: in.Generation, Listen: in.Listen, Services: []rollout.Service{}}
	if in.Listen != "" || len(in.Services) > 0 {
		c.address("listen address", in.Listen, true)
	}
	out.TLS = c.tls(in)
	c.need(len(in.Services) <= maxServices, "%d services are more than %d", len(in.Services), maxServices)
	backends := 0
	for _, svc := range in.Services {
		backends += len(svc.Backends)
	}
	ids := make(map[string]bool, backends)
	for _, svc := range in.Services {
		out.Services = append(out.Services, c.service(svc, ids))
	}
	c.need(len(ids) <= maxBackends, "%d backends are more than %d", len(ids), maxBackends)
	slices.SortStableFunc(out.Services, func(a, b rollout.Service) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(out.Services); i++ {
		c.need(out.Services[i].Name != out.Services[i-1].Name, "service %q is there twice", out.Services[i].Name)
	}
	if len(c.wrong) > 0 {
		return rollout.Table{}, fault.New(fault.Invalid, "the routing table is wrong").At(env.String()).Detail(c.wrong...)
	}
	return out, nil
}

// checker collects what is wrong, up to a readable number of lines.
type checker struct{ wrong []string }

func (c *checker) need(ok bool, format string, args ...any) {
	if !ok && len(c.wrong) < 20 {
		c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
	}
}

func (c *checker) service(in rollout.Service, ids map[string]bool) rollout.Service {
	c.name("service", in.Name)
	out := in
	out.Host = strings.ToLower(strings.TrimSuffix(in.Host, "."))
	c.need(validHost(out.Host), "service %q: host %q is not a host name or IP address without port", in.Name, in.Host)
	c.need(strings.HasPrefix(in.Path, "/") && !strings.ContainsAny(in.Path, "?#"), "service %q: path %q must begin with / and have no ? or #", in.Name, in.Path)
	out.Path = strings.TrimRight(in.Path, "/") + "/"
	if out.Path != "/" {
		out.Path = strings.TrimSuffix(out.Path, "/")
	}
	c.need(in.Hold >= 0 && in.Hold <= maxWait, "service %q: hold %s is not within 0s to %s", in.Name, in.Hold, maxWait)
	c.need(in.Drain >= 0 && in.Drain <= maxWait, "service %q: drain %s is not within 0s to %s", in.Name, in.Drain, maxWait)
	for _, d := range []time.Duration{in.Drains.Request, in.Drains.WebSocket, in.Drains.Stream, in.Drains.GRPC, in.Drains.TCP} {
		c.need(d >= 0 && d <= maxWait, "service %q: a drain time of %s is not within 0s to %s", in.Name, d, maxWait)
	}
	c.need(in.TCP == 0 && in.Listen == "", "service %q: tcp services are routed by the kernel, not by the http router", in.Name)
	out.Match = c.match(in)
	c.sticky(in)
	out.Backends = make([]rollout.Backend, 0, len(in.Backends))
	for _, b := range in.Backends {
		if !validName(b.ID) || ids[b.ID] || !validAddress(b.Address, false) || b.Release != "" && !validName(b.Release) || b.Weight < 0 || b.Weight > maxWeight {
			c.backend(b, ids[b.ID])
		}
		ids[b.ID] = true
		out.Backends = append(out.Backends, b)
	}
	byID := func(a, b rollout.Backend) int { return strings.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(out.Backends, byID) { // as a server sends them
		slices.SortStableFunc(out.Backends, byID)
	}
	return out
}

// backend says what is wrong with one. It is not called for those that are right:
// there may be thousands, while a switch waits.
func (c *checker) backend(b rollout.Backend, twice bool) {
	c.name("backend", b.ID)
	c.need(!twice, "backend %q is there twice", b.ID)
	c.address("backend "+strconv.Quote(b.ID)+": address", b.Address, false)
	c.need(b.Release == "" || validName(b.Release), "backend %q: release %q is not a name", b.ID, b.Release)
	c.need(b.Weight >= 0 && b.Weight <= maxWeight, "backend %q: weight %d is not within 0 to %d", b.ID, b.Weight, maxWeight)
}

// match checks which requests go to one release whatever the weights, and gives
// the header its one spelling.
func (c *checker) match(in rollout.Service) *rollout.Match {
	if in.Match == nil {
		return nil
	}
	m := *in.Match
	c.need((m.Header == "") != (m.Cookie == ""), "service %q: a match is by header or by cookie, by one of them", in.Name)
	c.need(validToken(m.Header+m.Cookie), "service %q: %q is not the name of a header or cookie", in.Name, m.Header+m.Cookie)
	m.Header = http.CanonicalHeaderKey(m.Header)
	c.need(m.Header != "Host", "service %q: the host is matched by the route, not by a header", in.Name)
	ok := m.Value != "" && len(m.Value) <= maxMatch && strings.TrimSpace(m.Value) == m.Value
	for _, r := range m.Value {
		ok = ok && r >= ' ' && r != 0x7f && (m.Cookie == "" || r != ';')
	}
	c.need(ok, "service %q: no header or cookie can have the value %q", in.Name, m.Value)
	c.name("release of the match of service "+strconv.Quote(in.Name)+":", m.Release)
	return &m
}

// sticky checks that the cookie can hold the releases that it is to name.
func (c *checker) sticky(in rollout.Service) {
	if in.Sticky == "" {
		return
	}
	c.need(validToken(in.Sticky), "service %q: %q is not the name of a cookie", in.Name, in.Sticky)
	for _, b := range in.Backends {
		err := (&http.Cookie{Name: "a", Value: b.Release}).Valid()
		c.need(b.Release != "" && err == nil, "service %q: a sticky cookie cannot name release %q of backend %q", in.Name, b.Release, b.ID)
	}
}

// validToken says whether s is a token (RFC 9110, 5.6.2).
func validToken(s string) bool {
	ok := s != "" && len(s) <= maxName
	for _, r := range s {
		ok = ok && r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}
	return ok
}

// name checks an identifier: it ends up in URLs, logs and the state file.
func (c *checker) name(what, s string) { c.need(validName(s), "%s %q is not a name", what, s) }

func validName(s string) bool {
	ok := s != "" && len(s) <= maxName && s != "." && s != ".."
	for i := range len(s) {
		ok = ok && s[i] > ' ' && s[i] < 0x7f && s[i] != '/'
	}
	return ok
}

func (c *checker) address(what, s string, anyHost bool) {
	c.need(validAddress(s, anyHost), "%s %q is not host:port with a port of 1 to 65535", what, s)
}

func validAddress(s string, anyHost bool) bool {
	if at, err := netip.ParseAddrPort(s); err == nil { // as an instance's is
		return at.Port() > 0
	}
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && n > 0 && (anyHost || host != "") && validHost(host)
}

// validHost accepts the empty host, an IP address or a host name.
func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); s == "" || err == nil {
		return true
	}
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}

// collisions finds services of a table that would answer for the same host and
// path on the same address as another one, here or in another environment.
func collisions(env rollout.Key, table rollout.Table, others map[rollout.Key]*environment) error {
	type place struct{ host, path string }
	taken := map[place]string{}
	for key, other := range others {
		if key == env || other.table.Listen != table.Listen {
			continue
		}
		for _, svc := range other.table.Services {
			taken[place{svc.Host, svc.Path}] = key.String() + " " + svc.Name
		}
	}
	var lines []string
	for _, svc := range table.Services {
		at := place{svc.Host, svc.Path}
		me := env.String() + " " + svc.Name
		if who, ok := taken[at]; ok {
			lines = append(lines, fmt.Sprintf("%s%s is asked for by %s and held by %s", hostOrAny(svc.Host), svc.Path, me, who))
		}
		taken[at] = me
	}
	if len(lines) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "two services want the same requests on %s", table.Listen).At(env.String()).Detail(lines...).
		Mend("give one of them another host or path under route:, or the environment another listen:")
}

func hostOrAny(host string) string {
	if host == "" {
		return "any host, path "
	}
	return host
}
