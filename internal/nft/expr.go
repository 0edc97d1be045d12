package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that rules are made of. Every match uses register r0 on, so a rule is
// the matches one after another.

// r0 is the first of the kernel's 4-byte registers; a key of several parts lies in r0, r0+1 and so on.
const r0 = unix.NFT_REG32_00

var (
	socketKey = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	flowKey   = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService)
)

func match(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: r0, Data: data}
}

func tcp() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r0}, equal([]byte{unix.IPPROTO_TCP})}
}

func from(link string) []expr.Any { return onLink(expr.MetaKeyIIFNAME, link, expr.CmpOpEq) }
func to(link string) []expr.Any   { return onLink(expr.MetaKeyOIFNAME, link, expr.CmpOpEq) }

func onLink(key expr.MetaKey, link string, op expr.CmpOp) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// Where the addresses are in an IPv4 header, and the ports in a TCP header.
const (
	sourceAddr, targetAddr = 12, 16
	sourcePort, targetPort = 0, 2
)

func loadAddr(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func loadPort(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

// within matches an address that is in a prefix, or with the other op one that is not.
func within(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	mask := ipNet(p).Mask
	return []expr.Any{
		loadAddr(offset, r0),
		&expr.Bitwise{SourceRegister: r0, DestRegister: r0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: r0, Data: p.Masked().Addr().AsSlice()},
	}
}

// toHost matches packets to an address that is one of the host's.
func toHost() []expr.Any {
	return []expr.Any{&expr.Fib{Register: r0, FlagDADDR: true, ResultADDRTYPE: true}, equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))}
}

// redirected matches packets of connections whose target was changed.
func redirected() []expr.Any {
	const dstNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: r0},
		&expr.Bitwise{SourceRegister: r0, DestRegister: r0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(dstNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: make([]byte, 4)},
	}
}

// opens matches a TCP packet that asks for a connection, or with the other op one that does not.
func opens(op expr.CmpOp) []expr.Any {
	const flags, fin, syn, rst, ack = 13, 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		&expr.Payload{DestRegister: r0, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: r0, DestRegister: r0, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: r0, Data: []byte{syn}},
	}
}

// resets matches a TCP packet that ends a connection at once.
func resets() []expr.Any {
	const flags, rst = 13, 0x04
	return []expr.Any{
		&expr.Payload{DestRegister: r0, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: r0, DestRegister: r0, Len: 1, Mask: []byte{rst}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: []byte{0}},
	}
}

// loadTarget loads the address and port that a packet goes to.
func loadTarget() []expr.Any {
	return []expr.Any{loadAddr(targetAddr, r0), loadPort(targetPort, r0+1)}
}

// loadFlow loads both ends of a connection.
func loadFlow() []expr.Any {
	return []expr.Any{
		loadAddr(sourceAddr, r0), loadPort(sourcePort, r0+1), loadAddr(targetAddr, r0+2), loadPort(targetPort, r0+3),
	}
}

// choose goes on with the chain that the map has for what was loaded.
func choose(m *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: r0, DestRegister: 0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}}
}

func isIn(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: r0, SetName: s.Name, SetID: s.ID}}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

// socketBytes is an element of socketKey.
func socketBytes(at netip.AddrPort) []byte {
	return append(at.Addr().AsSlice(), byte(at.Port()>>8), byte(at.Port()), 0, 0)
}

func parseSocket(b []byte) (netip.AddrPort, bool) {
	if len(b) != 8 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(b[4])<<8|uint16(b[5])), true
}

func portBytes(p uint16) []byte { return []byte{byte(p >> 8), byte(p)} }
