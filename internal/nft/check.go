package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// service is one TCP service of a table, checked.
type service struct {
	name     string
	port     uint16
	at       netip.AddrPort // its stable address; set when it is known
	listen   netip.AddrPort // zero: none; with the address 0.0.0.0: every address of the host
	hold     time.Duration
	drain    time.Duration
	backends []backend
	digest   string // of all of the above but at
}

type backend struct {
	id     string
	at     netip.AddrPort
	weight int
}

// maxWeights bounds the weights of a service's backends in sum.
const maxWeights = 1 << 30

// tcpServices gives the TCP services of a table, or says what is wrong with them.
func tcpServices(key rollout.Key, table rollout.Table) ([]service, error) {
	var out []service
	seen := map[netip.AddrPort]string{}
	for _, in := range table.Services {
		if in.TCP == 0 {
			continue
		}
		where := key.String() + "/" + in.Name
		s, err := checkService(in)
		if err != nil {
			return nil, err.At(where)
		}
		for _, b := range s.backends {
			if other, twice := seen[b.at]; twice {
				return nil, fault.New(fault.Invalid, "backends %s and %s have the same address %s", other, b.id, b.at).At(where)
			}
			seen[b.at] = b.id
		}
		out = append(out, s)
	}
	return out, nil
}

func checkService(in rollout.Service) (s service, _ *fault.Error) {
	if in.TCP < 1 || in.TCP > 65535 {
		return s, fault.New(fault.Invalid, "%d is no TCP port", in.TCP)
	}
	s = service{name: in.Name, port: uint16(in.TCP), hold: max(0, in.Hold), drain: in.Drain, digest: digestOf(in)}
	if in.Drains.TCP > 0 {
		s.drain = in.Drains.TCP
	}
	if in.Listen != "" {
		var err error
		if s.listen, err = parseListen(in.Listen); err != nil {
			return s, fault.New(fault.Invalid, "cannot listen on %q: %w", in.Listen, err).
				Mend("write an IPv4 address and a port, such as  127.0.0.1:%d", in.TCP)
		}
	}
	total := 0
	for _, b := range in.Backends {
		at, err := netip.ParseAddrPort(b.Address)
		if err != nil || !at.Addr().Is4() || at.Port() == 0 {
			return s, fault.New(fault.Invalid, "backend %s has the address %q, which is not an IPv4 address with a port", b.ID, b.Address)
		}
		if b.Weight < 0 {
			return s, fault.New(fault.Invalid, "backend %s has the weight %d", b.ID, b.Weight)
		}
		if total += b.Weight; total > maxWeights {
			return s, fault.New(fault.Invalid, "the weights of the backends are more than %d together", maxWeights)
		}
		m := member{id: b.ID, drain: s.drain, till: time.Unix(0, 1)}
		if len(m.String()) > maxComment || b.ID == "" {
			return s, fault.New(fault.Invalid, "backend %q cannot be named in the kernel's tables", b.ID)
		}
		s.backends = append(s.backends, backend{b.ID, at, b.Weight})
	}
	return s, nil
}

// parseListen reads host:port; without a host it is every address.
func parseListen(text string) (netip.AddrPort, error) {
	if len(text) > 0 && text[0] == ':' {
		text = "0.0.0.0" + text
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return at, fmt.Errorf("it is not an address and a port")
	}
	if !at.Addr().Is4() {
		return at, fmt.Errorf("TCP services speak IPv4 alone")
	}
	if at.Port() == 0 {
		return at, fmt.Errorf("port 0 is none")
	}
	return at, nil
}

// equalShares says that every backend that gets anything gets the same.
func equalShares(parts []share, turn uint32) bool { return int(turn) == len(parts) }

// digestOfAll is that of a table's TCP services.
func digestOfAll(services []service) string {
	digests := make([]string, len(services))
	for i, s := range services {
		digests[i] = s.digest
	}
	return digestOf(digests)
}

// digestOf tells tables and services apart, in short.
func digestOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// shares gives each backend the part of a turn that it takes, [from, to), and how
// long a turn is: the weights, divided by what they have in common.
func shares(backends []backend) (parts []share, turn uint32) {
	common := 0
	for _, b := range backends {
		common = gcd(common, b.weight)
	}
	for _, b := range backends {
		if b.weight == 0 {
			continue
		}
		n := uint32(b.weight / common)
		parts = append(parts, share{turn, b.at})
		turn += n
	}
	return parts, turn
}

type share struct {
	from uint32
	at   netip.AddrPort
}

// gcd is the greatest common divisor.
func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
