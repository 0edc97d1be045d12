package nft

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// maxWaiting is how many connections may wait for one service at a time; more are refused.
const maxWaiting = 1 << 16

// forgetting is how long it is remembered, beyond the service's Hold, that a connection
// has waited: longer than the longest pause between two SYNs of one connection.
const forgetting = 70 * time.Second

// Names in the kernel's table.
func registerName(key rollout.Key) string              { return key.String() }
func chainName(key rollout.Key, service string) string { return key.String() + "/" + service }

// waiting and asked are the sets of connections that wait for a service, and of those
// that ever asked for it lately. Their times are the kernel's.
func (r *ruleset) waiting(chain string, hold time.Duration) (waiting, asked *nftables.Set) {
	set := func(name string, t time.Duration) *nftables.Set {
		return &nftables.Set{
			Table: r.table, Name: chain + name, KeyType: flowKey, Concatenation: true,
			HasTimeout: true, Dynamic: true, Timeout: t, Size: maxWaiting,
		}
	}
	return set(".waiting", hold), set(".asked", 2*hold+forgetting)
}

// waits says whether new connections have to wait: there is no backend for them.
func (s service) waits() bool {
	_, turn := shares(s.backends)
	return turn == 0 && s.hold >= time.Millisecond
}

// A service's backends are in one of two maps in turn. A change fills the other one and
// leaves this one as it is: a packet that is amid the old rules may look into the old map when
// the new rules are in force already, and would not find there what was taken out.
//
// backends is one of them. Where shares differ, it is a map of intervals, which takes longer to fill.
func (r *ruleset) backends(chain, turn string, equal bool) *nftables.Set {
	return &nftables.Set{
		Table: r.table, Name: chain + "." + turn, IsMap: true, Interval: !equal, KeyType: nftables.TypeInteger, DataType: socketKey,
	}
}

// next is the map that a change fills.
func (p placed) next() string {
	if p.turn == "a" {
		return "b"
	}
	return "a"
}

// addService makes a service's chain and leads new connections to it.
func (r *ruleset) addService(b *batch, key rollout.Key, p placed, s service) {
	c := b.AddChain(&nftables.Chain{Table: r.table, Name: chainName(key, s.name)})
	b.addSet(r.backends(c.Name, p.next(), true), nil)
	r.fill(b, c, p, s)
	r.lead(b, c.Name, r.services, socketBytes(p.at))
	r.leadListen(b, c.Name, p.listen)
}

// changeService makes the rules anew.
func (r *ruleset) changeService(b *batch, key rollout.Key, was, p placed, s service) {
	c := r.empty(b, key, was)
	if was.listen != p.listen {
		r.leadListen(b, "", was.listen)
		r.leadListen(b, c.Name, p.listen)
	}
	b.DelSet(r.backends(c.Name, p.turn, true))
	r.fill(b, c, p, s)
}

func (r *ruleset) removeService(b *batch, key rollout.Key, p placed) {
	r.lead(b, "", r.services, socketBytes(p.at))
	r.leadListen(b, "", p.listen)
	c := r.empty(b, key, p)
	b.DelSet(r.backends(c.Name, p.turn, true))
	b.DelSet(r.backends(c.Name, p.next(), true))
	b.DelChain(c)
}

// empty takes the rules of a service's chain away, with the sets of those that wait.
func (r *ruleset) empty(b *batch, key rollout.Key, p placed) *nftables.Chain {
	c := &nftables.Chain{Table: r.table, Name: chainName(key, p.name)}
	b.FlushChain(c)
	if p.waits {
		waiting, asked := r.waiting(c.Name, 0)
		b.DelSet(waiting)
		b.DelSet(asked)
	}
	return c
}

// lead makes new connections go to a chain, or with an empty name not any more.
func (r *ruleset) lead(b *batch, chain string, m *nftables.Set, key []byte) {
	if chain == "" {
		b.remove(m, []nftables.SetElement{{Key: key}})
		return
	}
	b.elements(m, []nftables.SetElement{{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}})
}

func (r *ruleset) leadListen(b *batch, chain string, listen netip.AddrPort) {
	switch {
	case !listen.IsValid():
	case listen.Addr().IsUnspecified():
		r.lead(b, chain, r.ports, portBytes(listen.Port()))
	default:
		r.lead(b, chain, r.listens, socketBytes(listen))
	}
}

// fill writes the rules of a service's chain. A packet that opens no connection belongs
// to one that nobody knows any more: it is reset.
func (r *ruleset) fill(b *batch, c *nftables.Chain, p placed, s service) {
	rule := func(parts ...[]expr.Any) { b.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: match(parts...)}) }
	parts, turn := shares(s.backends)
	equal := equalShares(parts, turn)
	m := r.backends(c.Name, p.turn, equal)
	b.addSet(m, elements(parts, turn, equal))
	rule(opens(expr.CmpOpNeq), reset())
	switch {
	case turn > 0:
		rule(spread(m, turn))
		rule(verdict(expr.VerdictDrop)) // it was held up amid two changes: its next SYN gets through
	case p.waits:
		waiting, asked := r.waiting(c.Name, s.hold)
		b.addSet(waiting, nil)
		b.addSet(asked, nil)
		rule(loadFlow(), isIn(waiting), verdict(expr.VerdictDrop))
		rule(loadFlow(), isIn(asked), reset())
		rule(loadFlow(), remember(asked), remember(waiting), verdict(expr.VerdictDrop))
		rule(reset())
	default:
		rule(reset())
	}
}

func remember(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: r0, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD}}
}

// elements are those of a service's map: each backend's part of a turn, its only number or
// its first and the one after its last.
func elements(parts []share, turn uint32, equal bool) []nftables.SetElement {
	elements := make([]nftables.SetElement, 0, 2*len(parts))
	for i, p := range parts {
		if equal {
			elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(p.from), Val: socketBytes(p.at)})
			continue
		}
		end := turn
		if i+1 < len(parts) {
			end = parts[i+1].from
		}
		elements = append(elements,
			nftables.SetElement{Key: binaryutil.BigEndian.PutUint32(p.from), Val: socketBytes(p.at)},
			nftables.SetElement{Key: binaryutil.BigEndian.PutUint32(end), IntervalEnd: true})
	}
	return elements
}

// spread sends each new connection to the next backend in turn.
func spread(m *nftables.Set, turn uint32) []expr.Any {
	out := []expr.Any{&expr.Numgen{Register: r0, Modulus: turn, Type: unix.NFT_NG_INCREMENTAL}}
	if m.Interval { // intervals are ordered as bytes are
		out = append(out, &expr.Byteorder{SourceRegister: r0, DestRegister: r0, Op: expr.ByteorderHton, Len: 4, Size: 4})
	}
	return append(out,
		&expr.Lookup{SourceRegister: r0, DestRegister: r0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: r0, RegProtoMin: r0 + 1, Specified: true},
	)
}
