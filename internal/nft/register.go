package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The register is what the kernel remembers of an environment for us, as comments: one
// rule for the generation and one for each service in the chain APP/ENV, which no packet
// passes, and one element for each backend in the set APP/ENV. A comment has at most
// maxComment bytes.
const maxComment = 253

// stamp is the table of an environment that is in force.
type stamp struct {
	generation int64
	digest     string // of the whole table, in short
}

func (s stamp) String() string { return fmt.Sprintf("generation %d %s", s.generation, s.digest) }

// placed is a service that is in force.
type placed struct {
	name   string
	at     netip.AddrPort // its stable address
	listen netip.AddrPort // its address on the host; zero: none
	turn   string         // "a" or "b": which of its two maps has its backends, or had last (service.go)
	waits  bool           // it has no backend, and new connections wait
	digest string         // of the service, in short
}

func (p placed) String() string {
	listen, how := "-", "open"
	if p.listen.IsValid() {
		listen = p.listen.String()
	}
	if p.waits {
		how = "waits"
	}
	return fmt.Sprintf("service %s %s %s %s %s %s", p.name, p.at, listen, p.turn, how, p.digest)
}

// member is a backend that is in force, or was.
type member struct {
	id    string
	drain time.Duration // when it leaves
	rests bool          // it has weight 0
	till  time.Time     // it left and has time until then; zero: it did not leave
	cut   int           // connections cut when that was over; till is then when they were
	over  bool          // it left, and its time is over
}

func (m member) String() string {
	switch {
	case m.over:
		return m.id + " cut " + strconv.Itoa(m.cut) + " " + m.till.Format(time.RFC3339Nano)
	case !m.till.IsZero():
		return m.id + " leaves " + m.drain.String() + " " + m.till.Format(time.RFC3339Nano)
	}
	if m.rests {
		return m.id + " rests " + m.drain.String()
	}
	return m.id + " serves " + m.drain.String()
}

func parseStamp(text string) (s stamp, ok bool) {
	f := strings.Fields(text)
	if len(f) != 3 || f[0] != "generation" {
		return stamp{}, false
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	return stamp{n, f[2]}, err == nil && n > 0
}

func parsePlaced(text string) (p placed, ok bool) {
	f := strings.Fields(text)
	if len(f) != 7 || f[0] != "service" || f[4] != "a" && f[4] != "b" || f[5] != "open" && f[5] != "waits" {
		return placed{}, false
	}
	p = placed{name: f[1], turn: f[4], waits: f[5] == "waits", digest: f[6]}
	var err error
	if p.at, err = netip.ParseAddrPort(f[2]); err != nil {
		return placed{}, false
	}
	if f[3] != "-" {
		if p.listen, err = netip.ParseAddrPort(f[3]); err != nil {
			return placed{}, false
		}
	}
	return p, true
}

func parseMember(text string) (m member, ok bool) {
	f := strings.Fields(text)
	if len(f) < 3 {
		return member{}, false
	}
	m.id = f[0]
	var err error
	switch {
	case (f[1] == "serves" || f[1] == "rests") && len(f) == 3:
		m.rests = f[1] == "rests"
		m.drain, err = time.ParseDuration(f[2])
		return m, err == nil
	case f[1] == "leaves" && len(f) == 4:
		m.drain, err = time.ParseDuration(f[2])
	case f[1] == "cut" && len(f) == 4:
		m.over = true
		m.cut, err = strconv.Atoi(f[2])
	default:
		return member{}, false
	}
	if err != nil || m.cut < 0 {
		return member{}, false
	}
	m.till, err = time.Parse(time.RFC3339Nano, f[3])
	m.till = m.till.UTC()
	return m, err == nil && !m.till.IsZero()
}

// succeed gives the backends after a change from prev to the table's backends: who
// is not in it any more leaves, who is in it again serves.
func succeed(prev map[netip.AddrPort]member, services []service, now time.Time) map[netip.AddrPort]member {
	next := map[netip.AddrPort]member{}
	now = now.UTC().Round(0) // as the register gives it back
	for at, m := range prev {
		switch {
		case m.over && now.Sub(m.till) > remembered:
			continue
		case m.till.IsZero():
			m.till, m.rests = now.Add(m.drain), false
		}
		next[at] = m
	}
	for _, s := range services {
		for _, b := range s.backends {
			next[b.at] = member{id: b.id, drain: s.drain, rests: b.weight == 0}
		}
	}
	return next
}

// remembered is how long it is told what was cut.
const remembered = 10 * time.Minute
