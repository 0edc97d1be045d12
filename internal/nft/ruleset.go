package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ruleset is the part of a server's table that does not change: the base chains and
// the maps by which a new connection finds the chain of its service.
type ruleset struct {
	kernel *kernel
	table  *nftables.Table
	bridge string
	lower  netip.Prefix // the services' addresses
	upper  netip.Prefix // what stands for clients

	services *nftables.Set // stable address and port to chain
	listens  *nftables.Set // address on the host and port to chain
	ports    *nftables.Set // port of any address on the host to chain
	opened   *nftables.Set // links that forward because of us
}

func newRuleset(k *kernel, table *nftables.Table, bridge string, book *addresses) *ruleset {
	chains := func(name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: table, Name: name, IsMap: true, KeyType: key, DataType: nftables.TypeVerdict, Concatenation: key.Bytes > 4}
	}
	return &ruleset{
		kernel: k, table: table, bridge: bridge, lower: book.lower(), upper: book.upper(),
		services: chains("services", socketKey),
		listens:  chains("listens", socketKey),
		ports:    chains("ports", nftables.TypeInetService),
		opened:   &nftables.Set{Table: table, Name: "opened", KeyType: nftables.TypeIFName},
	}
}

// add makes all of it.
func (r *ruleset) add(b *batch) {
	b.AddTable(r.table)
	for _, s := range []*nftables.Set{r.services, r.listens, r.ports, r.opened} {
		b.addSet(s, nil)
	}
	r.addGuards(b)
	r.addTranslation(b)
}

func (r *ruleset) chain(b *batch, name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority, rules ...[]expr.Any) {
	c := b.AddChain(&nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: at})
	for _, exprs := range rules {
		b.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: exprs})
	}
}

// addGuards keeps what the host's settings would let through for our sake: the bridge
// forwards, so instances could send to the world; it routes loopback addresses, so they
// could send to the host's own; links that were opened would forward for anybody.
func (r *ruleset) addGuards(b *batch) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	r.chain(b, "guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw,
		match(from(r.bridge), within(targetAddr, loopback, expr.CmpOpEq), verdict(expr.VerdictDrop)),
		match(from(r.bridge), within(sourceAddr, loopback, expr.CmpOpEq), verdict(expr.VerdictDrop)),
	)
	r.chain(b, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter,
		match(from(r.bridge), to(r.bridge), verdict(expr.VerdictAccept)),
		match(redirected(), verdict(expr.VerdictAccept)),
		match(from(r.bridge), tcp(), reset()),
		match(from(r.bridge), verdict(expr.VerdictDrop)),
		match([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: r0}}, isIn(r.opened), verdict(expr.VerdictDrop)),
	)
}

// addTranslation sends new connections to their service's chain. An instance is asked from
// an address that it can answer to: one of the upper half, the same one for each client, so that
// the ports of clients do not collide. Programs on the host that use a service's own address
// have it as their source too and need nothing.
func (r *ruleset) addTranslation(b *batch) {
	anywhere := match(tcp(), within(targetAddr, r.lower, expr.CmpOpNeq), toHost(),
		[]expr.Any{loadPort(targetPort, r0)}, choose(r.ports))
	r.chain(b, "arriving", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest,
		match(from(r.bridge), tcp(), loadTarget(), choose(r.services)),
		match(from(r.bridge), tcp(), within(targetAddr, r.lower, expr.CmpOpEq), reset()),
		match(tcp(), loadTarget(), choose(r.listens)),
		anywhere,
	)
	r.chain(b, "local", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest,
		match(tcp(), resets(), verdict(expr.VerdictAccept)), // ours: the kernel takes what answers a new connection for new
		match(tcp(), loadTarget(), choose(r.services)),
		match(tcp(), within(targetAddr, r.lower, expr.CmpOpEq), reset()),
		match(tcp(), loadTarget(), choose(r.listens)),
		anywhere,
	)
	first, last := addressAt(r.upper, 1), addressAt(r.upper, 1<<(32-r.upper.Bits())-2)
	r.chain(b, "leaving", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		match(to(r.bridge), redirected(), within(sourceAddr, r.lower, expr.CmpOpEq), verdict(expr.VerdictAccept)),
		match(to(r.bridge), redirected(), []expr.Any{
			&expr.Immediate{Register: r0, Data: first.AsSlice()},
			&expr.Immediate{Register: r0 + 1, Data: last.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: r0, RegAddrMax: r0 + 1, Persistent: true},
		}),
	)
}
