package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// pool is where a server without a configured subnet takes a /20 from: room for 16
// servers of 4,093 instances each.
var pool = netip.MustParsePrefix("10.213.0.0/16")

const blockBits = 20

// network is a server's bridge and the addresses on it. The first address is the bridge's.
type network struct {
	file   string
	bridge string
	fixed  bool         // the subnet was configured
	beyond netip.Prefix // what else instances reach through the bridge

	mu     sync.Mutex
	subnet netip.Prefix // zero: not chosen yet
	up     bool         // this server has seen the bridge
	last   netip.Addr   // the address that was given last
	taken  map[netip.Addr]bool
}

// stored is network.json.
type stored struct {
	Bridge string       `json:"bridge"`
	Subnet netip.Prefix `json:"subnet"`
}

func openNetwork(runDir, bridge string, subnet netip.Prefix) (*network, error) {
	n := &network{
		file: filepath.Join(runDir, "network.json"), bridge: bridge,
		subnet: subnet.Masked(), fixed: subnet.IsValid(), taken: map[netip.Addr]bool{},
	}
	if n.fixed {
		if !subnet.Addr().Is4() || subnet.Bits() > 29 {
			return nil, fault.New(fault.Invalid, "subnet %s is not an IPv4 network with room for instances", subnet).
				Mend("write one such as 10.213.0.0/20")
		}
		return n, nil
	}
	var s stored
	switch err := shim.ReadJSON(n.file, &s); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fault.New(fault.Internal, "read the network's settings: %w", err).At(n.file).Mend("stop all instances, then remove the file")
	default:
		n.subnet = s.Subnet
	}
	return n, nil
}

// take gives an address that no instance has, in turn, so that an address
// rests as long as possible before another instance gets it. It makes the bridge
// if there is none.
func (n *network) take() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.ensure(); err != nil {
		return netip.Addr{}, err
	}
	first := n.gateway().Next()
	addr := n.last
	for range 1 << (32 - n.subnet.Bits()) {
		if addr = addr.Next(); !addr.IsValid() || !n.subnet.Contains(addr.Next()) {
			addr = first // behind addr is the broadcast address or nothing
		}
		if addr.Less(first) {
			addr = first
		}
		if !n.taken[addr] {
			n.taken[addr], n.last = true, addr
			return addr, nil
		}
	}
	return netip.Addr{}, fault.New(fault.Unavailable, "all %d addresses of %s are in use", len(n.taken), n.subnet)
}

// hold marks the address of an adopted instance.
func (n *network) hold(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[a] = true
	if !n.last.IsValid() || n.last.Less(a) {
		n.last = a
	}
}

func (n *network) release(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taken, a)
}

func (n *network) gateway() netip.Addr { return n.subnet.Addr().Next() }

// ensure makes the bridge if it is not there. Servers of one host take turns, so
// that no two choose the same block.
func (n *network) ensure() error {
	if _, err := netlink.LinkByName(n.bridge); err == nil && n.up {
		return nil
	}
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.choose(); err != nil {
		return err
	}
	if err := n.makeBridge(); err != nil {
		return fault.New(fault.Unavailable, "make the network bridge %s: %w", n.bridge, err).
			Mend("the server needs root with CAP_NET_ADMIN; see  ashlar doctor")
	}
	n.up = true
	return nil
}

// choose settles the subnet: the configured or remembered one, as long as nobody
// else has it; otherwise the first free block.
func (n *network) choose() error {
	used, err := hostPrefixes(n.bridge)
	if err != nil {
		return fault.New(fault.Unavailable, "read the host's addresses and routes: %w", err)
	}
	if n.subnet.IsValid() {
		other := overlapping(n.subnet, used)
		if !other.IsValid() {
			return n.remember()
		}
		if n.fixed || len(n.taken) > 0 {
			return fault.New(fault.Conflict, "the instances' subnet %s overlaps %s, which this host uses", n.subnet, other).
				Mend("configure another subnet")
		}
	}
	for block := pool.Addr(); pool.Contains(block); block = nextBlock(block) {
		if p := netip.PrefixFrom(block, blockBits); !overlapping(p, used).IsValid() {
			n.subnet, n.last = p, netip.Addr{}
			return n.remember()
		}
	}
	return fault.New(fault.Unavailable, "no free network block left in %s", pool).Mend("configure a subnet")
}

func (n *network) remember() error {
	want := stored{Bridge: n.bridge, Subnet: n.subnet}
	var have stored
	if b, err := os.ReadFile(n.file); err == nil && json.Unmarshal(b, &have) == nil && have == want {
		return nil
	}
	return shim.WriteDurableJSON(n.file, want)
}

func nextBlock(a netip.Addr) netip.Addr {
	b := a.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += 1 << (32 - blockBits)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func overlapping(p netip.Prefix, used []netip.Prefix) netip.Prefix {
	for _, u := range used {
		if u.Overlaps(p) {
			return u
		}
	}
	return netip.Prefix{}
}

// hostPrefixes lists the host's IPv4 addresses and routes, except those of the
// link with the name given and the default route.
func hostPrefixes(except string) ([]netip.Prefix, error) {
	own := 0
	if l, err := netlink.LinkByName(except); err == nil {
		own = l.Attrs().Index
	}
	var out []netip.Prefix
	add := func(link int, ipnet *net.IPNet) {
		if ipnet == nil || link == own {
			return
		}
		addr, ok := netip.AddrFromSlice(ipnet.IP.To4())
		if ones, _ := ipnet.Mask.Size(); ok && ones > 0 {
			out = append(out, netip.PrefixFrom(addr, ones).Masked())
		}
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		add(a.LinkIndex, a.IPNet)
	}
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	for _, r := range routes {
		add(r.LinkIndex, r.Dst)
	}
	return out, err
}

func (n *network) makeBridge() error {
	link, err := netlink.LinkByName(n.bridge)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.bridge
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		if link, err = netlink.LinkByName(n.bridge); err != nil {
			return err
		}
	}
	addr := &netlink.Addr{IPNet: ipNet(n.gateway(), n.subnet.Bits())}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give it %s: %w", n.gateway(), err)
	}
	return netlink.LinkSetUp(link)
}

// teardown removes the bridge.
func (n *network) teardown() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	return deleteLink(n.bridge)
}

func deleteLink(name string) error {
	if name == "" {
		return nil
	}
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) || err == nil {
		return nil // it may go by itself meanwhile, with its network namespace
	}
	return fmt.Errorf("delete network link %s: %w", name, err)
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// lockHost holds off the other servers of this host while one settles its subnet.
// The lock is on a directory of the kernel's, so that nothing stays behind.
func lockHost() (unlock func(), err error) {
	f, err := os.Open("/sys/class/net")
	if err != nil {
		return nil, fault.New(fault.Unavailable, "lock the host's network: %w", err)
	}
	if err := flock(context.Background(), f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// dump lists what the kernel has, again if it changed meanwhile: on a host where links
// come and go, one listing may be cut in two by a change (NLM_F_DUMP_INTR, netlink(7)).
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumps {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// dumps is how often a listing is tried.
const dumps = 20
