package nft

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// flow is a connection through a service, as connection tracking has it.
type flow struct {
	client, service netip.AddrPort // as the client sees it
	backend, source netip.AddrPort // as the backend sees it
	state           uint8          // expr.CtStateTCP…
}

// flows are the connections of an environment's backends, by backend.
type flows map[netip.AddrPort][]flow

// underWay counts the connections that are not over. One that was asked for and not answered
// yet counts: its backend is about to answer.
func (f flows) underWay(at netip.AddrPort) int {
	n := 0
	for _, c := range f[at] {
		if c.underWay() {
			n++
		}
	}
	return n
}

func (c flow) underWay() bool {
	switch c.state - 1 { // the kernel counts from 1, NONE being 0
	case expr.CtStateTCPSYNSENT, expr.CtStateTCPSYNRECV, expr.CtStateTCPESTABLISHED, expr.CtStateTCPFINWAIT, expr.CtStateTCPCLOSEWAIT:
		return true
	}
	return false
}

// count is what a listing of connections found.
type count struct {
	flows flows
	at    time.Time
	took  time.Duration
}

// The kernel can only list all of the host's connections. Where they are many that takes
// long, and a rollout asks often: an answer holds for so many times as long as it took,
// so that asking takes a tenth of the time at most. Since a backend that has left gets no new
// connection, an older count of it is never too small.
const (
	countHolds = 10
	countMost  = 2 * time.Second
)

// countFlows is listFlows for Status.
func (r *Router) countFlows(key rollout.Key, members map[netip.AddrPort]member) (flows, error) {
	if c, ok := r.counts[key]; ok && time.Since(c.at) < min(countHolds*c.took, countMost) {
		return c.flows, nil
	}
	began := time.Now()
	found, err := r.listFlows(members)
	if err != nil {
		return nil, err
	}
	if r.counts == nil {
		r.counts = map[rollout.Key]count{}
	}
	r.counts[key] = count{flows: found, at: time.Now(), took: time.Since(began)}
	return found, nil
}

// listFlows asks connection tracking for the connections of backends. Those that
// go to a backend directly, as probes do, are none of a service's.
func (r *Router) listFlows(members map[netip.AddrPort]member) (flows, error) {
	out := flows{}
	if len(members) == 0 {
		return out, nil
	}
	tracking, err := r.kernel.track()
	if err != nil {
		return nil, err
	}
	list, err := tracking.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err := r.kernel.lost(err); err != nil {
		return nil, err
	}
	for _, e := range list {
		f, ok := toFlow(e)
		if _, ours := members[f.backend]; ok && ours && f.backend != f.service {
			out[f.backend] = append(out[f.backend], f)
		}
	}
	return out, nil
}

func toFlow(e *netlink.ConntrackFlow) (flow, bool) {
	tcp, ok := e.ProtoInfo.(*netlink.ProtoInfoTCP)
	if !ok || e.Forward.Protocol != unix.IPPROTO_TCP {
		return flow{}, false
	}
	at := func(ip net.IP, port uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(ip.To4())
		return netip.AddrPortFrom(a, port)
	}
	return flow{
		client: at(e.Forward.SrcIP, e.Forward.SrcPort), service: at(e.Forward.DstIP, e.Forward.DstPort),
		backend: at(e.Reverse.SrcIP, e.Reverse.SrcPort), source: at(e.Reverse.DstIP, e.Reverse.DstPort),
		state: tcp.State,
	}, true
}

// cutter deletes the entries of some backends.
type cutter struct {
	due map[netip.AddrPort]member
	cut []flow
}

// MatchConntrackFlow says whether an entry is to be deleted.
func (c *cutter) MatchConntrackFlow(e *netlink.ConntrackFlow) bool {
	f, ok := toFlow(e)
	if _, due := c.due[f.backend]; !ok || !due || f.backend == f.service {
		return false
	}
	if f.underWay() {
		c.cut = append(c.cut, f)
	}
	return true
}

// cutOverdue ends the drains whose time is over, in every environment, and sets the timer
// for the next. It is called at each look and by the timer. What fails is tried again at
// the next look.
func (r *Router) cutOverdue() {
	if len(r.book.Routed) == 0 {
		return
	}
	rules := newRuleset(&r.kernel, r.table, r.cfg.Bridge, r.book)
	for _, text := range r.book.Routed {
		key := parseKey(text)
		env, err := r.read(rules, key)
		if err == nil {
			due := map[netip.AddrPort]member{}
			for at, m := range env.members {
				if !m.over && !m.till.IsZero() && !r.cfg.Now().Before(m.till) {
					due[at] = m
				}
			}
			if len(due) > 0 {
				env.members, err = r.cutNow(rules, text, env, due)
			}
		}
		if err != nil {
			r.cfg.Log.Warn("cannot cut what is left of drained backends", "env", text, "err", err)
			continue
		}
		r.schedule(env)
	}
}

// cutNow makes connection tracking forget what the backends still have, then makes both ends
// find out, and writes down how many there were.
func (r *Router) cutNow(rules *ruleset, env string, was environment, due map[netip.AddrPort]member) (map[netip.AddrPort]member, error) {
	c := &cutter{due: due}
	tracking, err := r.kernel.track()
	if err != nil {
		return was.members, err
	}
	_, err = tracking.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, c)
	if err := r.kernel.lost(err); err != nil {
		return was.members, err
	}
	if err := challenge(c.cut); err != nil {
		r.cfg.Log.Warn("cut connections end only when they are used", "env", env, "err", err)
	}
	next := maps.Clone(was.members)
	for at, m := range due {
		n := 0
		for _, f := range c.cut {
			if f.backend == at {
				n++
			}
		}
		if n > 0 {
			r.cfg.Log.Warn("drain time is over, connections cut", "env", env, "backend", m.id, "connections", n)
		}
		next[at] = member{id: m.id, over: true, cut: n, till: r.cfg.Now().UTC().Round(0)}
	}
	is := was
	is.members = next
	return next, r.noteMembers(rules, parseKey(env), was, is)
}

// schedule sets the timer for the environment's next cut, if it comes before the one that is set.
func (r *Router) schedule(env environment) {
	var next time.Time
	for _, m := range env.members {
		if !m.over && !m.till.IsZero() && (next.IsZero() || m.till.Before(next)) {
			next = m.till
		}
	}
	if next.IsZero() || r.ended || !r.wake.IsZero() && !next.Before(r.wake) {
		return
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.wake = next
	r.timer = time.AfterFunc(max(0, next.Sub(r.cfg.Now())), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.wake.Equal(next) && !r.ended {
			r.wake = time.Time{}
			r.cutOverdue()
		}
	})
}

// challenge makes both ends of forgotten connections say something, which the rules
// answer with a reset; else one that only listens would wait for ever. It sends each, in the name of the
// other, a segment that no connection may get, SYN and ACK, which TCP answers by an
// acknowledgement (RFC 5961, section 4.2) and which connection tracking does not track.
func challenge(cut []flow) error {
	if len(cut) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	for _, f := range cut {
		err = errors.Join(err, send(fd, f.service, f.client), send(fd, f.source, f.backend))
	}
	return errors.Join(err, unix.Close(fd))
}

func send(fd int, from, to netip.AddrPort) error {
	return unix.Sendto(fd, synAck(from, to), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
}

// synAck is an IPv4 packet with a TCP segment (RFC 9293, section 3.1). The kernel
// fills in the IP header's length, identification and checksum.
func synAck(from, to netip.AddrPort) []byte {
	p := make([]byte, 40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // version and length, time to live
	source, target := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], source[:])
	copy(p[16:], target[:])
	segment := p[20:]
	binary.BigEndian.PutUint16(segment, from.Port())
	binary.BigEndian.PutUint16(segment[2:], to.Port())
	segment[12], segment[13] = 5<<4, 0x12 // length, SYN and ACK
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, part := range [][]byte{p[12:20], segment} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(segment[16:], ^uint16(sum))
	return p
}
